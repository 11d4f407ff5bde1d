"""The statements of chains: the end of a job lets the next one of its chain run.

A trigger suspends a new job whose chain is busy, and has its transaction hold a lock on the chain
until it ends. So the ids of a chain have the order of the commits.
"""

from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from ..clock import database_now, nearest
from ..models import Job, JobState
from ..models.chain import ENTRY
from ..statements.states import constant

_IDS = ARRAY(BigInteger)
_LIVE = [
    literal(state.value, Text)
    for state in (
        JobState.AVAILABLE,
        JobState.SCHEDULED,
        JobState.EXECUTING,
        JobState.RETRYABLE,
    )
]


def chain_of(job: Any) -> ColumnElement[str]:
    """The chain of a job, as the expression that the index contains."""
    chain: ColumnElement[str] = job.meta.op("->>", return_type=Text())(literal_column(f"'{ENTRY}'"))
    return chain


def in_chain(job: Any) -> ColumnElement[bool]:
    """Whether a job is in a chain that it may still delay."""
    # The predicate of the index.
    unfinished = job.state.not_in([constant(JobState.COMPLETED), constant(JobState.CANCELLED)])
    return and_(job.meta.has_key(literal_column(f"'{ENTRY}'")), unfinished)


def blocks_chain(job: Any) -> ColumnElement[bool]:
    """Whether a job keeps the other jobs of its chain from running."""
    state = cast(job.state, Text)
    held = and_(state == "discarded", job.meta["chain"].astext == "hold")
    return or_(state.in_(_LIVE), held)


@lru_cache(maxsize=1)
def chains_of() -> Executable:
    """The chains of the jobs `ids`, and the id of the `table` of jobs."""
    chain = chain_of(Job)
    return (
        select(chain.label("chain"), cast(literal_column("tableoid"), BigInteger).label("table"))
        .where(Job.id == any_(bindparam("ids", type_=_IDS)), chain.is_not(None))
        .distinct()
    )


@lru_cache(maxsize=2)
def lock_chains(*, wait: bool) -> Executable:
    """Lock the `chains` of a `table` as its trigger does; returns each, and if it is locked."""
    chain = select(
        func.unnest(bindparam("chains", type_=ARRAY(Text)), type_=Text).label("chain")
    ).subquery("chains")
    hashed = func.hashtextextended(chain.c.chain, bindparam("table", type_=BigInteger))
    if wait:
        # The function returns void, which is not NULL.
        locked: Any = cast(func.pg_advisory_xact_lock(hashed), Text).is_not(None)
    else:
        locked = func.pg_try_advisory_xact_lock(hashed)
    return select(chain.c.chain, locked.label("locked"))


@lru_cache(maxsize=4)
def release_next(*, now: datetime | None = None) -> Executable:
    """Let the first suspended job run in each of the `chains` that no job blocks.

    If one of the jobs `ids` was discarded and its chain has `on_discard="cancel"`, cancel all
    suspended jobs of the chain. Returns id, queue, state and time of the jobs. A job that another
    transaction has locked stays as it is, and has no state.
    """
    time = database_now(now)
    chain = select(
        func.unnest(bindparam("chains", type_=ARRAY(Text)), type_=Text).label("chain")
    ).cte("chains")
    failed = aliased(Job, name="failed")
    ends = select(chain_of(failed)).where(
        failed.id == any_(bindparam("ids", type_=_IDS)),
        cast(failed.state, Text) == "discarded",
        failed.meta["chain"].astext == "cancel",
    )
    waiting, other = aliased(Job, name="waiting"), aliased(Job, name="other")
    suspended = (
        in_chain(waiting),
        chain_of(waiting) == chain.c.chain,
        cast(waiting.state, Text) == JobState.SUSPENDED.value,
        not_(waiting.meta.has_key(literal_column("'workflow_id'"))),
    )
    first = select(waiting.id).where(*suspended).order_by(waiting.id).limit(1).scalar_subquery()
    busy = (
        select(literal(1))
        .where(in_chain(other), chain_of(other) == chain.c.chain, blocks_chain(other))
        .exists()
    )
    next_ones = (
        select(first.label("id")).select_from(chain).where(not_(busy), chain.c.chain.not_in(ends))
    )
    doomed = select(waiting.id).join(chain, chain.c.chain.in_(ends)).where(*suspended)
    targets = union_all(next_ones, doomed).cte("targets")
    free = (
        select(Job.id)
        .where(
            Job.id == any_(func.array(select(targets.c.id).scalar_subquery(), type_=_IDS)),
            cast(Job.state, Text) == JobState.SUSPENDED.value,
        )
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
        .cte("free")
    )
    due = func.greatest(Job.scheduled_at, time)
    is_doomed = chain_of(Job).in_(ends)
    moved = (
        update(Job)
        .where(Job.id == any_(func.array(select(free.c.id).scalar_subquery(), type_=_IDS)))
        .values(
            state=case(
                (is_doomed, constant(JobState.CANCELLED)),
                (due > time, constant(JobState.SCHEDULED)),
                else_=constant(JobState.AVAILABLE),
            ),
            scheduled_at=case((is_doomed, Job.scheduled_at), else_=due),
            cancelled_at=case((is_doomed, time), else_=Job.cancelled_at),
        )
        .returning(Job.id, Job.queue, Job.state, nearest(Job.scheduled_at).label("scheduled_at"))
        .cte("moved")
    )
    return (
        select(targets.c.id, moved.c.queue, moved.c.state, moved.c.scheduled_at)
        .outerjoin_from(targets, moved, moved.c.id == targets.c.id)
        .where(targets.c.id.is_not(None))
    )


@lru_cache(maxsize=1)
def suspend_again() -> Executable:
    """Suspend the jobs `ids` of chains that wait for a producer."""
    return (
        update(Job)
        .where(
            Job.id == any_(bindparam("ids", type_=_IDS)),
            chain_of(Job).is_not(None),
            cast(Job.state, Text) == JobState.AVAILABLE.value,
        )
        .values(state=constant(JobState.SUSPENDED))
        .returning(Job.id)
    )


@lru_cache(maxsize=1)
def idle_chains() -> Select[Any]:
    """The chains with suspended jobs that no other job blocks, and the id of the `table` of jobs.

    `ended_by` is a discarded job with `on_discard="cancel"`, whose chain had such jobs by then.
    """
    waiting, other = aliased(Job, name="waiting"), aliased(Job, name="other")
    of_chain = (in_chain(other), chain_of(other) == chain_of(waiting))
    busy = select(literal(1)).where(*of_chain, blocks_chain(other)).exists()
    ended_by = (
        select(other.id)
        .where(
            *of_chain,
            cast(other.state, Text) == JobState.DISCARDED.value,
            other.meta["chain"].astext == "cancel",
            other.discarded_at >= waiting.inserted_at,
        )
        .limit(1)
    )
    return (
        select(
            chain_of(waiting).label("chain"),
            ended_by.scalar_subquery().label("ended_by"),
            cast(literal_column("waiting.tableoid"), BigInteger).label("table"),
        )
        .where(
            in_chain(waiting),
            cast(waiting.state, Text) == JobState.SUSPENDED.value,
            not_(waiting.meta.has_key(literal_column("'workflow_id'"))),
            not_(busy),
        )
        .distinct()
        .limit(1000)
    )
