"""Insert any number of jobs, and announce them, in one statement with one parameter."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    DateTime,
    Executable,
    FromClause,
    Integer,
    SelectBase,
    SmallInteger,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal,
    literal_column,
    select,
    union_all,
)
from sqlalchemy import insert as insert_into
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ..models import Job, JobState, validation
from ..models.state import STAGEABLE
from ..models.types import job_state
from .announce import SCHEDULE, notify, queue_news
from .states import constant

FIELDS = ("state", "queue", "worker", "max_attempts", "priority", "args", "meta", "tags")
"""What a job has to hold to be inserted; `scheduled_at` is now, if it holds none."""

# What most jobs have is not sent, but filled in: half of the encoding, a quarter of the statement.
_DEFAULTS: Mapping[str, tuple[Any, str]] = {
    "state": (JobState.AVAILABLE, "'available'"),
    "queue": ("default", "'default'"),
    "max_attempts": (20, "20"),
    "priority": (0, "0"),
    "meta": ({}, "'{}'::jsonb"),
    "tags": ([], "ARRAY[]::text[]"),
}

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


@lru_cache(maxsize=64)
def insert(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """Insert the `jobs`, `records()`; returns the id and `inserted_at` of each.

    The rows come in the order of the jobs: identity values are drawn after the ORDER BY, which
    PostgreSQL guarantees for INSERT ... SELECT, and the outer SELECT sorts by them.
    """
    record = given().c
    now = func.timezone("UTC", func.now())
    inserted = (
        insert_into(Job)
        .from_select(
            [*FIELDS, "scheduled_at"],
            select(
                cast(record.state, job_state),
                *(record[field] for field in FIELDS[1:]),
                func.coalesce(record.scheduled_at, now),
            ).order_by(record.n),
            include_defaults=False,
        )
        .returning(Job.id, Job.inserted_at, Job.state, Job.queue, Job.scheduled_at)
        .cte("inserted")
    )
    columns: list[Any] = [inserted.c.id, inserted.c.inserted_at]
    if announced:
        columns.append(announced_rows(inserted, prefix))
    return select(*columns).order_by(inserted.c.id)


def given() -> FromClause:
    """The parameter `jobs` as rows."""
    record = _rows_given().c
    kept = (record.n, record.worker, record.args, record.scheduled_at)
    filled = (
        func.coalesce(record[field], literal_column(default)).label(field)
        for field, (_, default) in _DEFAULTS.items()
    )
    return select(*kept, *filled).subquery("given")


def _rows_given() -> FromClause:
    return (
        func.jsonb_to_recordset(cast(bindparam("jobs", type_=Text), JSONB))
        .table_valued(
            column("n", Integer),
            column("state", Text),
            column("queue", Text),
            column("worker", Text),
            column("max_attempts", SmallInteger),
            column("priority", SmallInteger),
            column("args", JSONB),
            column("meta", JSONB),
            column("tags", ARRAY(Text)),
            column("scheduled_at", DateTime),
        )
        .render_derived(name="record", with_types=True)
    )


def records(jobs: Sequence[Job]) -> str:
    """Jobs as the parameter `jobs`.

    `ValueError` or `TypeError` for what was put into their args, meta or tags since they were
    checked, and can't be stored.
    """
    try:
        text = _encode([_record(vars(job), n) for n, job in enumerate(jobs)])
    except (TypeError, ValueError, RecursionError):
        _check_all(jobs)
        raise
    # JSON has an escape for what PostgreSQL can't store: a NUL character, half a surrogate pair.
    if "\\u0000" in text or "\\ud" in text:
        _check_all(jobs)
    return text


def _record(values: Mapping[str, Any], n: int) -> dict[str, Any]:
    if tags := values["tags"]:
        validation.tag_list(tags)
    record = {"n": n, "worker": values["worker"], "args": values["args"]}
    for field, (default, _) in _DEFAULTS.items():
        if (value := values[field]) != default:
            record[field] = value
    if (at := values.get("scheduled_at")) is not None:
        record["scheduled_at"] = at.replace(tzinfo=None).isoformat()
    return record


def _check_all(jobs: Sequence[Job]) -> None:
    for job in jobs:
        check_json(vars(job))


def check_json(values: Mapping[str, Any]) -> None:
    """`ValueError` or `TypeError` for what was put into args or meta, and can't be stored."""
    for field in ("args", "meta"):
        if field in values:
            validation.json_object(field, values[field])


def announced_rows(rows: CTE, prefix: str | None) -> ColumnElement[int]:
    """Announce rows of jobs; the column has to be selected for that to happen."""
    sent = _news(rows, prefix).subquery()
    return select(func.count()).select_from(sent).scalar_subquery()


def _news(inserted: CTE, prefix: str | None) -> SelectBase:
    available = inserted.alias("available")
    queues = (
        select(available.c.queue)
        .where(available.c.state == constant(JobState.AVAILABLE))
        .distinct()
        .subquery("queues")
    )
    scheduled = inserted.alias("scheduled")
    at = func.to_char(func.min(scheduled.c.scheduled_at), 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
    due = (
        select(literal(SCHEDULE, Text), cast(func.json_build_object(literal("at", Text), at), Text))
        .where(scheduled.c.state.in_([constant(state) for state in STAGEABLE]))
        .having(func.count() > 0)
    )
    return notify(union_all(queue_news(queues.c.queue), due), prefix)
