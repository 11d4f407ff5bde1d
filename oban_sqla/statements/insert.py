"""Insert any number of jobs, and announce them, in one statement with one parameter."""

from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    DateTime,
    Executable,
    Integer,
    SelectBase,
    SmallInteger,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy import insert as insert_into
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ..models import Job, JobState
from ..models.types import job_state
from .announce import SCHEDULE, notify, queue_news
from .states import constant


@lru_cache(maxsize=64)
def insert(*, prefix: str | None = None, announced: bool = True) -> Executable:
    """Insert the `jobs`, an array of `record()`; returns id, state, inserted_at and scheduled_at.

    The rows come in the order of the jobs: identity values are drawn after the ORDER BY, which
    PostgreSQL guarantees for INSERT ... SELECT, and the outer SELECT sorts by them.
    """
    records = (
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
    record = records.c
    now = func.timezone("UTC", func.now())
    inserted = (
        insert_into(Job)
        .from_select(
            [
                "state",
                "queue",
                "worker",
                "max_attempts",
                "priority",
                "args",
                "meta",
                "tags",
                "scheduled_at",
            ],
            select(
                cast(record.state, job_state),
                record.queue,
                record.worker,
                record.max_attempts,
                record.priority,
                record.args,
                record.meta,
                record.tags,
                func.coalesce(record.scheduled_at, now),
            ).order_by(record.n),
            include_defaults=False,
        )
        .returning(Job.id, Job.state, Job.queue, Job.inserted_at, Job.scheduled_at)
        .cte("inserted")
    )
    columns: list[Any] = [
        inserted.c.id,
        inserted.c.state,
        inserted.c.inserted_at,
        inserted.c.scheduled_at,
    ]
    if announced:
        sent = _news(inserted, prefix).subquery()
        columns.append(select(func.count()).select_from(sent).scalar_subquery())
    return select(*columns).order_by(inserted.c.id)


def record(job: Job, n: int) -> dict[str, Any]:
    """A job as the `n`-th element of the parameter `jobs`, which is a JSON array as text."""
    at: datetime | None = job.scheduled_at
    return {
        "n": n,
        "state": job.state,
        "queue": job.queue,
        "worker": job.worker,
        "max_attempts": job.max_attempts,
        "priority": job.priority,
        "args": job.args,
        "meta": job.meta,
        "tags": job.tags,
        "scheduled_at": None if at is None else at.replace(tzinfo=None).isoformat(),
    }


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
        .where(scheduled.c.state == constant(JobState.SCHEDULED))
        .having(func.count() > 0)
    )
    return notify(union_all(queue_news(queues.c.queue), due), prefix)
