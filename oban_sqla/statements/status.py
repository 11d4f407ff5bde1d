"""Status: who runs which queues, who leads, and how many jobs there are in which state.

What others may have written is read as text: an unknown state, or a meta that is no object.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Executable,
    Function,
    Integer,
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
from ..models import Job, JobState, LeaderLease, ProducerRow
from .elect import free_at
from .states import constant, state_in


def producers(*, now: datetime | None = None) -> Executable:
    """The producers: `name`, `node`, `queue`, `uuid`, `meta` as text, `started_at`.

    And `silent_for`, the seconds since the last sign of life, and how many jobs are `running`.
    """
    claimed = (
        select(Job.attempted_by[2].label("claimer"), func.count().label("count"))
        .where(state_in(JobState.EXECUTING))
        .group_by("claimer")
        .subquery("claimed")
    )
    uuid = cast(ProducerRow.uuid, Text)
    return (
        select(
            ProducerRow.name,
            ProducerRow.node,
            ProducerRow.queue,
            uuid.label("uuid"),
            cast(ProducerRow.meta, Text).label("meta"),
            ProducerRow.started_at,
            seconds(database_now(now) - ProducerRow.updated_at).label("silent_for"),
            func.coalesce(claimed.c.count, 0).label("running"),
        )
        .outerjoin(claimed, claimed.c.claimer == uuid)
        .order_by(ProducerRow.name, ProducerRow.node, ProducerRow.queue)
    )


def leaders(*, now: datetime | None = None) -> Executable:
    """The leases: `name`, `node`, `elected_at`, and `expires_in` seconds, less than 0 if it has.

    A lease of another Oban counts for longer, as in elections.
    """
    return select(
        LeaderLease.name,
        LeaderLease.node,
        LeaderLease.elected_at,
        seconds(free_at() - database_now(now)).label("expires_in"),
    ).order_by(LeaderLease.name)


def counts(*, prefix: str, exact: int, now: datetime | None = None) -> Executable:
    """How many jobs there are by `state` (as text) and `queue`, and whether that is `estimated`.

    Up to `exact` of them are counted; beyond, the planner guesses. `waits` are the seconds that the
    oldest one has been available, NULL for other states.
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
        .order_by(Job.priority, Job.scheduled_at, Job.id)  # along the index, not the table
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
    """The states, queues and priorities that there are: one descent of the index for each."""
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
    """The job of a lane that has been available for longest."""
    job = aliased(Job)
    return (
        select(job.scheduled_at)
        .where(
            lanes.c.state == constant(JobState.AVAILABLE),
            job.state == lanes.c.state,
            job.queue == lanes.c.queue,
            job.priority == lanes.c.priority,
        )
        .order_by(job.scheduled_at, job.id)
        .limit(1)
        .lateral("head")
    )
