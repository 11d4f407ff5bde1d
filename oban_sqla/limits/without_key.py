"""The jobs without limits of a queue that also has limited jobs, for its claim."""

from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    DateTime,
    Double,
    FromClause,
    Integer,
    Select,
    SmallInteger,
    Text,
    bindparam,
    cast,
    false,
    func,
    literal,
    null,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from ..clock import EVER
from ..models import Job, JobState
from ..statements.claim import claim_order, of_queue
from ..statements.states import constant
from .queue_keys import OF_KEY
from .search import PRIORITIES
from .terms import partition_of


def jobs_without_key() -> CTE:
    """The first jobs without limits, for each priority after its instant in `since`.

    No index separates them from limited jobs, and a hundred thousand of those may wait before them.
    Other programs may have inserted jobs with priorities beyond those in `since`.
    """
    since = (
        func.unnest(bindparam("since", type_=ARRAY(DateTime)))
        .table_valued("since", with_ordinality="n")
        .render_derived(name="since")
    )
    job = aliased(Job)
    first = (
        _available(job)
        .where(job.priority == cast(since.c.n - 1, SmallInteger))
        .where(job.scheduled_at >= func.coalesce(since.c.since, EVER))
        .order_by(job.scheduled_at, job.id)
        .correlate(since)
        .lateral("first_without_key")
    )
    other = aliased(Job)
    beyond = (
        _available(other)
        .where(other.priority >= literal(PRIORITIES))
        .order_by(*claim_order(other))
        .subquery("beyond")
    )
    return union_all(
        select(*_columns(first)).select_from(since.join(first, true())),
        select(*_columns(beyond)),
    ).cte("without_key")


def _available(job: Any) -> Select[Any]:
    return (
        select(job.id, job.priority, job.scheduled_at)
        .where(
            job.state == constant(JobState.AVAILABLE),
            job.queue == of_queue().right,
            partition_of(job).is_(None),
        )
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(key_share=True, skip_locked=True)
    )


def none_without_key() -> CTE:
    """Every job of a queue with keys has one."""
    job = aliased(Job)
    none = select(job.id, job.priority, job.scheduled_at).where(false()).subquery("none")
    of_key = (cast(null(), kind).label(name) for name, kind in OF_KEY.items())
    return select(*_columns(none), *of_key).cte("without_key")


def _columns(jobs: FromClause) -> list[ColumnElement[Any]]:
    text, number = cast(null(), Text), cast(null(), Integer)
    return [
        jobs.c.id,
        jobs.c.priority,
        literal(1).label("without_key"),
        literal(0).label("turn"),
        literal(0).label("step"),
        jobs.c.scheduled_at,
        text.label("key"),
        text.label("limit_id"),
        number.label("limit_room"),
        text.label("rate_id"),
        number.label("permits"),
        *(number.label(name) for name in ("weight", "allowed", "burst")),
        cast(null(), Double).label("period"),
    ]
