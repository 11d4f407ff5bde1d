"""Count jobs by state and queue.

States are read as text, so that a state which this version does not know raises no error.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Function,
    Integer,
    Select,
    Text,
    case,
    cast,
    func,
    literal,
    quoted_name,
    select,
    true,
    tuple_,
)
from sqlalchemy.orm import aliased

from ..clock import database_now, seconds
from ..models import Job, JobState
from .claimed import representable
from .states import constant

EXACT = 50_000
"""Up to this many jobs of a queue and state are counted; the planner estimates larger numbers."""


def counts(*, prefix: str, exact: int, now: datetime | None = None) -> Select[Any]:
    """The `count` of jobs by `state` (as text) and `queue`, and whether it is `estimated`.

    Up to `exact` jobs are counted; the planner estimates larger numbers. `waits` is how many
    seconds the oldest available job has been due, NULL for other states. Jobs whose due time
    Python can't represent do not count for `waits`.
    """
    lanes = _lanes()
    head = _heads(lanes)
    groups = (
        select(lanes.c.state, lanes.c.queue, func.min(head.c.scheduled_at).label("since"))
        .select_from(lanes.outerjoin(head, true()))
        .group_by(lanes.c.state, lanes.c.queue)
        .subquery("groups")
    )
    first = (
        select(literal(1).label("one"))
        .select_from(Job)
        .where(Job.state == groups.c.state, Job.queue == groups.c.queue)
        .order_by(Job.priority, Job.scheduled_at, Job.id)  # reads the index instead of the table
        .limit(exact + 1)
        .correlate(groups)
        .subquery("first")
    )
    counted = select(func.count().label("count")).select_from(first).lateral("counted")
    more = counted.c.count > exact
    state = cast(groups.c.state, Text)
    guess: ColumnElement[Any] = Function(
        "oban_count_estimate",
        state,
        groups.c.queue,
        packagenames=(quoted_name(prefix, quote=True),),
        type_=Integer,
    )
    count = case((more, func.greatest(guess, counted.c.count)), else_=counted.c.count)
    return (
        select(
            state.label("state"),
            groups.c.queue,
            cast(count, BigInteger).label("count"),
            more.label("estimated"),
            seconds(database_now(now) - groups.c.since).label("waits"),
        )
        .select_from(groups.join(counted, true()))
        .order_by(groups.c.queue, groups.c.state)
    )


def _lanes() -> CTE:
    """Each existing state, queue and priority, found by one index lookup each (a loose scan)."""
    columns = (Job.state, Job.queue, Job.priority)
    first = select(*columns).order_by(*columns).limit(1).subquery("first")
    lanes = select(first).cte("lanes", recursive=True)
    job = aliased(Job)
    order = (job.state, job.queue, job.priority)
    following = (
        select(*order)
        .where(tuple_(*order) > tuple_(lanes.c.state, lanes.c.queue, lanes.c.priority))
        .order_by(*order)
        .limit(1)
        .lateral("following")
    )
    return lanes.union_all(select(following).select_from(lanes.join(following, true())))


def _heads(lanes: CTE) -> Any:
    """The `scheduled_at` of the job of a lane that has been available for longest."""
    job = aliased(Job)
    return (
        select(job.scheduled_at)
        .where(
            lanes.c.state == constant(JobState.AVAILABLE),
            job.state == lanes.c.state,
            job.queue == lanes.c.queue,
            job.priority == lanes.c.priority,
            representable(job.scheduled_at),
        )
        .order_by(job.scheduled_at, job.id)
        .limit(1)
        .lateral("head")
    )
