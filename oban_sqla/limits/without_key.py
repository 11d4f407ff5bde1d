"""The jobs without limits of a queue that also has limited jobs, for its claim."""

from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    DateTime,
    FromClause,
    Integer,
    Select,
    SmallInteger,
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
from .search import PRIORITIES
from .terms import partition_of


def jobs_without_key(like: Select[Any]) -> CTE:
    """The first jobs without limits, for each priority after its instant in `since`.

    The columns are those of `like`, NULL if only limited jobs have them.
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
        select(*_columns(first, like)).select_from(since.join(first, true())),
        select(*_columns(beyond, like)),
    ).cte("without_key")


def _available(job: Any) -> Any:
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


def none_without_key(like: Select[Any]) -> CTE:
    """Every job of a queue with keys has one."""
    job = aliased(Job)
    none = select(job.id, job.priority, job.scheduled_at).where(false()).subquery("none")
    return select(*_columns(none, like)).cte("without_key")


def _columns(jobs: FromClause, like: Select[Any]) -> list[ColumnElement[Any]]:
    own: dict[str, ColumnElement[Any]] = {
        "id": jobs.c.id,
        "priority": jobs.c.priority,
        "without_key": literal(1),
        "turn": literal(0),
        "step": literal(0),
        "scheduled_at": jobs.c.scheduled_at,
    }
    return [
        own.get(name, cast(null(), column.type)).label(name)
        for name, column in like.selected_columns.items()
    ]
