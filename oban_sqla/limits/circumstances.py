"""Read the facts that explain why a job waits: about the job, its limits, and its queue."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Double,
    Executable,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from ..clock import database_now, seconds
from ..config.partition import Partition
from ..models import Job, JobState, ProducerRow, QueueOrder
from ..statements.claim import claim_order, of_queue
from ..statements.claimed import fetchable, representable
from ..statements.orders import EVERY
from ..statements.states import constant
from .queue_keys import executing_with
from .rows import RateRow
from .terms import (
    LIMIT_ID,
    Terms,
    enough_in,
    is_partitioned,
    limits_of,
    partition_of,
    tokens,
    used,
)

MOST_NAMED = 10
MOST_AHEAD = 1000
ENDED_AT = ("completed_at", "cancelled_at", "discarded_at")


@lru_cache(maxsize=1)
def circumstances() -> Executable:
    """The columns of the job `id`, and the counts of its limit and its rate."""
    time = database_now()
    terms = Terms.of(limits_of(Job))
    row = aliased(RateRow)
    saved = tokens(row, terms.allowed, terms.burst, terms.period, time)
    log = terms.allowed + terms.burst - used(terms.rate_id, terms.period, time)
    fewer = case((terms.burst > 0, cast(func.floor(saved), Integer)))
    in_log = enough_in(terms.rate_id, terms.allowed + terms.burst, terms.period, terms.weight, time)
    in_tokens = case(
        (terms.burst > 0, (terms.weight - saved) * terms.period / func.nullif(terms.allowed, 0))
    )
    too_few = and_(terms.rate_id.is_not(None), func.least(log, fewer) < terms.weight)
    held_id = func.coalesce(terms.rate_id, terms.limit_id, partition_of(Job))
    return (
        select(
            cast(Job.state, Text).label("state"),
            Job.queue,
            Job.attempt,
            Job.max_attempts,
            cast(Job.meta, Text).label("meta"),
            cast(Job.attempted_by, ARRAY(Text)).label("attempted_by"),
            fetchable("attempted_at", Job.attempted_at),
            func.coalesce(*(fetchable(name, getattr(Job, name)) for name in ENDED_AT)).label(
                "ended_at"
            ),
            time.label("now"),
            case((representable(Job.scheduled_at), seconds(Job.scheduled_at - time))).label(
                "due_in"
            ),
            terms.limit_id.label("limit_id"),
            terms.most.label("most"),
            terms.shares.label("shares"),
            _of_limit(terms).label("executing"),
            terms.rate_id.label("rate_id"),
            case((too_few, func.greatest(in_log, in_tokens))).label("next_in"),
            held_id.label("held_id"),
            seconds(row.held_until - time).label("held_in"),
            _ahead().label("ahead"),
        )
        .select_from(Job)
        .outerjoin(row, row.rate == held_id)
        .where(Job.id == bindparam("id", type_=BigInteger))
    )


@lru_cache(maxsize=1)
def producers_of() -> Executable:
    """The producers of a queue: `node`, `meta` (as text), `silent_for` and how many jobs `run`."""
    job = aliased(Job)
    run = (
        select(func.count())
        .where(
            job.state == constant(JobState.EXECUTING),
            job.attempted_by[2] == cast(ProducerRow.uuid, Text),
        )
        .correlate(ProducerRow)
        .scalar_subquery()
    )
    return (
        select(
            ProducerRow.name,
            ProducerRow.node,
            cast(ProducerRow.meta, Text).label("meta"),
            seconds(database_now() - ProducerRow.updated_at).label("silent_for"),
            run.label("run"),
        )
        .where(ProducerRow.queue == bindparam("queue", type_=Text))
        .order_by(ProducerRow.node)
    )


@lru_cache(maxsize=1)
def pauses_of() -> Executable:
    """The last orders to pause or to resume a queue, the newest first."""
    return (
        select(QueueOrder.name, QueueOrder.node, QueueOrder.value, QueueOrder.changed_at)
        .where(QueueOrder.setting == "paused")
        .where(QueueOrder.queue.in_([EVERY, bindparam("queue", type_=Text)]))
        .order_by(QueueOrder.changed_at.desc())
    )


@lru_cache(maxsize=1)
def executing_in_queue() -> Executable:
    """The number of executing jobs of the queue `queue_name`."""
    return select(func.count().label("count")).where(
        Job.state == constant(JobState.EXECUTING), of_queue()
    )


@lru_cache(maxsize=64)
def executing_of_key(partition: Partition) -> Executable:
    """The ids of the executing jobs of the queue `queue_name` with the key `key_id`."""
    job = executing_with(aliased(Job), partition).subquery("job")
    return select(job.c.id).where(job.c.key == bindparam("key_id", type_=Text)).order_by(job.c.id)


@lru_cache(maxsize=1)
def next_start() -> Executable:
    """The seconds until the rate `rate_id` of a queue lets a job start; NULL if one may start."""
    time = database_now()
    rate_id = cast(bindparam("rate_id", type_=Text), Text)
    allowed, burst = (
        cast(bindparam(name, type_=Integer), Integer) for name in ("allowed", "burst")
    )
    period = cast(bindparam("period", type_=Double), Double)
    row = aliased(RateRow)
    saved = tokens(row, allowed, burst, period, time)
    log = allowed + burst - used(rate_id, period, time)
    permits = func.least(log, case((burst > 0, cast(func.floor(saved), Integer))))
    in_log = enough_in(rate_id, allowed + burst, period, literal(1), time)
    in_tokens = case((burst > 0, (1 - saved) * period / allowed))
    next_in = case((permits < 1, func.greatest(in_log, in_tokens)))
    one = select(literal(1).label("one")).subquery()
    return select(next_in.label("next_in")).select_from(one.outerjoin(row, row.rate == rate_id))


def _of_limit(terms: Terms) -> Any:
    """The ids of the jobs that execute under the limit."""
    job = aliased(Job)
    limit_id = job.meta.op("#>>", return_type=Text())(LIMIT_ID)
    return (
        select(func.array_agg(job.id, type_=ARRAY(BigInteger)))
        .where(job.state == constant(JobState.EXECUTING), is_partitioned(job))
        .where(limit_id == terms.limit_id)
        .correlate(Job)
        .scalar_subquery()
    )


def _ahead() -> Any:
    """The number of jobs of the queue before the job, counted up to `MOST_AHEAD`."""
    other = aliased(Job)
    before = (
        select(other.id)
        .where(other.state == constant(JobState.AVAILABLE), other.queue == Job.queue)
        .where(tuple_(*claim_order(other)) < tuple_(*claim_order(Job)))
        .limit(MOST_AHEAD)
        .correlate(Job)
        .subquery()
    )
    return select(func.count()).select_from(before).scalar_subquery()
