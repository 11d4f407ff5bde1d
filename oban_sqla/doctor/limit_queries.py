"""Queries of the doctor about limits."""

from typing import Any

from sqlalchemy import Executable, Text, and_, any_, bindparam, exists, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from ..clock import database_now, interval, seconds
from ..models import Base, Job, JobState, ProducerRow
from ..models.unique import COUNTED_BY
from ..statements.heartbeat import EXPIRY
from ..statements.states import constant, state_in

OF_QUEUES = ("global_limit", "rate_limit")
PRIORITIES = range(10)


def limited() -> Executable:
    """The names in `queues` of the queues that have limits, or jobs with limits."""
    given = (
        func.unnest(bindparam("queues", type_=ARRAY(Text)))
        .table_valued("queue")
        .render_derived(name="given")
    )

    def has_jobs(state: JobState) -> Any:
        counted = (Job.meta.has_key(entry) for entry in COUNTED_BY)
        return exists().where(state_in(state), Job.queue == given.c.queue, *counted)

    # Each state by itself, so that the index of waiting limited jobs serves one of them.
    of_jobs = or_(has_jobs(JobState.AVAILABLE), has_jobs(JobState.EXECUTING))
    of_queue = exists().where(
        ProducerRow.queue == given.c.queue,
        # Oban Pro publishes limits in the same form, and obeys its own.
        ProducerRow.meta.has_key(EXPIRY),
        or_(*(ProducerRow.meta.has_key(name) for name in OF_QUEUES)),
    )
    return select(given.c.queue).where(or_(of_queue, of_jobs))


def holders(longer_than: float, most: int) -> Executable:
    """The jobs that have long held a slot for which others wait, the oldest first.

    They wait for the same key, or for a slot in one of `queues`, which have a limit over all
    nodes. Returns the id, the queue, the `producer`, and the seconds that each job `executes`.
    """
    time = database_now()
    waits = aliased(Job)
    key = COUNTED_BY[0]
    waiting = and_(waits.state == constant(JobState.AVAILABLE), waits.queue == Job.queue)
    of_key = exists().where(
        waiting,
        waits.meta.has_key(key),
        waits.meta[key].astext == Job.meta[key].astext,
        # For the index of waiting limited jobs.
        waits.priority.in_(PRIORITIES),
    )
    of_queue = Job.queue == any_(bindparam("queues", type_=ARRAY(Text)))
    return (
        select(
            Job.id,
            Job.queue,
            Job.attempted_by[2].label("producer"),
            seconds(time - Job.attempted_at).label("executes"),
        )
        .where(
            state_in(JobState.EXECUTING),
            Job.attempted_at < time - interval(literal(longer_than)),
            or_(and_(Job.meta.has_key(key), of_key), and_(of_queue, exists().where(waiting))),
        )
        .order_by(Job.attempted_at)
        .limit(most)
    )


def holds(longer_than: float) -> Executable:
    """The rates and keys that stay held for long, by `name`: their `count`, and the seconds left.

    The name of a key ends before its value, which may be a secret.
    """
    rates = Base.metadata.tables["oban_sqla_rates"].c
    name = func.split_part(rates.rate, "=", 1)
    time = database_now()
    left = func.max(rates.held_until) - time
    return (
        select(name.label("name"), func.count().label("count"), seconds(left).label("left"))
        .where(rates.held_until > time + interval(literal(longer_than)))
        .group_by(name)
        .order_by(name)
    )
