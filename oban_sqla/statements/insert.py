"""Insert any number of jobs, and announce them, in one statement with one parameter."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    DateTime,
    Executable,
    FromClause,
    Insert,
    Integer,
    SmallInteger,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy import insert as insert_into
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by

from ..models import Job, JobState, validation
from ..models.instrumentation import values_of
from ..models.notation import may_hold_our_keys, to_table
from ..models.types import job_state
from .announce import announce, sent_with

FIELDS = ("state", "queue", "worker", "max_attempts", "priority", "args", "meta", "tags")
"""The columns that a new job must have; `scheduled_at` defaults to now."""

# Default values are not sent; the statement fills them in. This saves half of the time of the
# encoding, and a quarter of that of the statement.
_DEFAULTS: Mapping[str, tuple[Any, str]] = {
    "state": (JobState.AVAILABLE, "'available'"),
    "queue": ("default", "'default'"),
    "max_attempts": (20, "20"),
    "priority": (0, "0"),
    "meta": ({}, "'{}'::jsonb"),
    "tags": ([], "ARRAY[]::text[]"),
}

_DEFAULT_VALUES = tuple((field, default) for field, (default, _) in _DEFAULTS.items())

NOW = func.timezone(literal_column("'UTC'"), func.now())
"""The time of the transaction, as a column stores it."""

# A circular value raises `RecursionError`. To look for one costs a quarter of the encoding.
_encode = json.JSONEncoder(allow_nan=False, check_circular=False, separators=(",", ":")).encode


@lru_cache(maxsize=64)
def insert(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """Insert the parameter `jobs`, which `records()` makes, and send `news` if `announced`.

    Returns one row: the ids, in the order of the jobs, and `inserted_at`, which all jobs share. The
    ids have that order because PostgreSQL draws identity values after the ORDER BY of an
    INSERT ... SELECT. A row for each job would cost the process two microseconds per job.
    """
    inserted = inserting().returning(Job.id, Job.inserted_at).cte("inserted")
    ids = aggregate_order_by(inserted.c.id, inserted.c.id)
    columns: list[Any] = [func.array_agg(ids), func.min(inserted.c.inserted_at)]
    if announced:
        columns.append(sent_with(announce(prefix=prefix)))
    return select(*columns)


def inserting() -> Insert:
    """The INSERT of the parameter `jobs`, without its RETURNING."""
    record = given().c
    return insert_into(Job).from_select(
        [*FIELDS, "scheduled_at"],
        select(
            cast(record.state, job_state),
            *(record[field] for field in FIELDS[1:]),
            func.coalesce(record.scheduled_at, NOW),
        ).order_by(record.n),
        include_defaults=False,
    )


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
    """Encode jobs as the parameter `jobs`.

    `ValueError` or `TypeError` if a job's args, meta or tags were changed in place, and hold a
    value that can't be stored.
    """
    try:
        text = _encode([_record(values_of(job), n) for n, job in enumerate(jobs)])
        if may_hold_our_keys(text):
            text = _encode([_record(_written(values_of(job)), n) for n, job in enumerate(jobs)])
    except (TypeError, ValueError, RecursionError):
        _check_all(jobs)
        raise
    if _may_be_unstorable(text):
        _check_all(jobs)
    return text


def encoded_json(values: Mapping[str, Any]) -> tuple[str, str]:
    """Encode the args and the meta of one job.

    `ValueError` or `TypeError` as for `records`.
    """
    try:
        args, meta = _encode(values["args"]), _encode(values["meta"])
        if may_hold_our_keys(args):
            args = _encode(to_table(values["args"]))
    except (TypeError, ValueError, RecursionError):
        check_json(values)
        raise
    if _may_be_unstorable(args) or _may_be_unstorable(meta):
        check_json(values)
    return args, meta


def _may_be_unstorable(text: str) -> bool:
    # PostgreSQL can't store a NUL character or half a surrogate pair, though JSON can escape them.
    return "\\u0000" in text or "\\ud" in text


def _record(values: Mapping[str, Any], n: int) -> dict[str, Any]:
    if tags := values["tags"]:
        validation.tag_list(tags)
    record = {"n": n, "worker": values["worker"], "args": values["args"]}
    for field, default in _DEFAULT_VALUES:
        if (value := values[field]) != default:
            record[field] = value
    if (at := values.get("scheduled_at")) is not None:
        record["scheduled_at"] = at.replace(tzinfo=None).isoformat()
    return record


def _written(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**values, "args": to_table(values["args"])}


def _check_all(jobs: Sequence[Job]) -> None:
    for job in jobs:
        check_json(values_of(job))


def check_json(values: Mapping[str, Any]) -> None:
    """`ValueError` or `TypeError` if args or meta hold a value that can't be stored."""
    for field in ("args", "meta"):
        if field in values:
            validation.json_object(field, values[field])
