"""Prune: delete finished jobs that are past their retention, a batch at a time."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    Executable,
    Float,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    all_,
    and_,
    any_,
    bindparam,
    delete,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..clock import database_now, interval
from ..models import JobState
from ..models.types import UTCDateTime
from .states import state_in
from .tables import JOB, JOBS

FIRST = (datetime(1, 1, 1, tzinfo=UTC), 0)
"""The position (a time and an id) before all jobs."""

LOCK_TIMEOUT = "500ms"
"""How long a deletion waits for locked rows that refer to the jobs by a foreign key."""

_IDS = ARRAY(BigInteger)
# The model of the feature is above.
_STEPS = Table("oban_sqla_workflow_steps", MetaData(), Column("job_id", BigInteger))
_FINISHED_AT = {
    JobState.COMPLETED: JOB.completed_at,
    JobState.CANCELLED: JOB.cancelled_at,
    JobState.DISCARDED: JOB.discarded_at,
}


@lru_cache(maxsize=16)
def prune(state: JobState, *, named: bool, now: datetime | None = None) -> Executable:
    """Delete up to `batch` of the jobs that are `expiring`.

    Returns one row: the number of `deleted` jobs, whether there may be `more`, the position of the
    last job that was read (`last_at` and `last_id`), the ids of `locked` jobs (NULL for none), and
    `until`: if there are no more, all jobs that finished before it were read.
    """
    # The lock timeout is set before the deletion: a deletion that waits would keep its other locks.
    limit = select(func.set_config("lock_timeout", LOCK_TIMEOUT, True)).scalar_subquery()
    read = _expiring(state, named, now).where(limit.is_not(None)).cte("read")
    wanted = select(read.c.id).where(read.c.wanted)
    pruned = _pruned(state, func.array(wanted.scalar_subquery(), type_=_IDS), now)
    full = func.count() == bindparam("batch", type_=Integer)
    last = select(*read.c).order_by(read.c.number.desc()).limit(1).subquery("last")
    return select(
        select(func.count()).select_from(pruned).scalar_subquery().label("deleted"),
        select(or_(full, func.coalesce(func.bool_or(read.c.last), false())))
        .select_from(read)
        .scalar_subquery()
        .label("more"),
        select(last.c.finished_at).scalar_subquery().label("last_at"),
        select(last.c.id).scalar_subquery().label("last_id"),
        _locked(wanted, pruned),
        _cutoff(now).label("until"),
    )


@lru_cache(maxsize=4)
def oldest_finished(state: JobState, *, now: datetime | None = None) -> Executable:
    """Select the first job behind a position that finished in `state` more than `age` seconds ago.

    Without such a job, `prune` deletes nothing. `prune` takes an event loop 6 ms to compile.
    """
    order = (_FINISHED_AT[state], JOB.id)
    return (
        select(JOB.id)
        .where(*_finished(state, now), tuple_(*order) > tuple_(*_position()))
        .order_by(*order)
        .limit(1)
    )


@lru_cache(maxsize=4)
def prune_listed(state: JobState, *, now: datetime | None = None) -> Executable:
    """Delete the jobs in `state` whose ids are `ids`, if they finished more than `age` seconds ago.

    Returns one row: the number of `deleted` jobs, and the ids of `locked` jobs (NULL for none).
    """
    listed = bindparam("ids", type_=_IDS)
    wanted = select(JOB.id).where(*_finished(state, now), JOB.id == any_(listed))
    pruned = _pruned(state, listed, now)
    count = select(func.count()).select_from(pruned).scalar_subquery()
    return select(count.label("deleted"), _locked(wanted, pruned))


@lru_cache(maxsize=16)
def expiring(state: JobState, *, named: bool, now: datetime | None = None) -> Executable:
    """Select the next jobs that finished in `state` more than `age` seconds ago.

    The statement reads a part of the index: the first `scan` jobs after `after_at` and `after_id`.
    It selects up to `batch` of them that are `wanted`: if `named`, the jobs of the `workers`, else
    the jobs of all other workers. A rule thus reads each job once, also jobs of other workers. The
    `last` job of a full part is always selected, since more jobs may follow it.

    Returns `id`, `finished_at`, `wanted`, `last`, and the `number` in the part.
    """
    selected: Executable = _expiring(state, named, now)
    return selected


@lru_cache(maxsize=16)
def expired(state: JobState, *, named: bool, now: datetime | None = None) -> Executable:
    """Select the `id` of up to `batch` jobs that finished in `state` more than `age` seconds ago.

    If `named`, these are jobs of the `workers`, else of all other workers. The oldest come first.
    """
    at = _FINISHED_AT[state]
    jobs = select(JOB.id).where(*_finished(state, now), _is_wanted(named))
    return jobs.order_by(at, JOB.id).limit(bindparam("batch", type_=Integer))


def _expiring(state: JobState, named: bool, now: datetime | None) -> Any:
    order = (_FINISHED_AT[state], JOB.id)
    scan = bindparam("scan", type_=Integer)
    part = (
        select(
            JOB.id,
            order[0].label("finished_at"),
            _is_wanted(named).label("wanted"),
            func.row_number().over(order_by=order).label("number"),
        )
        .where(*_finished(state, now), tuple_(*order) > tuple_(*_position()))
        .order_by(*order)
        # A subquery hides the number from the planner. With the number, it would sort all jobs of a
        # table that was not analyzed yet.
        .limit(select(scan).scalar_subquery())
        .subquery("part")
    )
    last = part.c.number == scan
    return (
        select(*part.c, last.label("last"))
        .where(or_(part.c.wanted, last))
        # To sort by the number, the server would read the whole part.
        .order_by(part.c.finished_at, part.c.id)
        .limit(bindparam("batch", type_=Integer))
    )


def _position() -> tuple[ColumnElement[Any], ...]:
    return bindparam("after_at", type_=UTCDateTime), bindparam("after_id", type_=BigInteger)


def _finished(state: JobState, now: datetime | None) -> tuple[ColumnElement[bool], ...]:
    return state_in(state), _FINISHED_AT[state] < _cutoff(now)


def _cutoff(now: datetime | None) -> ColumnElement[datetime]:
    return type_coerce(database_now(now) - interval(bindparam("age", type_=Float)), UTCDateTime())


def _is_wanted(named: bool) -> ColumnElement[bool]:
    workers = bindparam("workers", type_=ARRAY(Text))
    of_worker = JOB.worker == any_(workers) if named else JOB.worker != all_(workers)
    return and_(of_worker, not_(_is_step()))


def _is_step() -> ColumnElement[bool]:
    """Whether a job is a step of a workflow, which is pruned as a whole."""
    found = select(literal_column("1")).where(_STEPS.c.job_id == JOB.id).exists()
    return and_(JOB.meta.has_key(literal_column("'workflow_id'")), found)


def _pruned(state: JobState, ids: Any, now: datetime | None) -> CTE:
    free = select(JOB.id).where(*_finished(state, now), JOB.id == any_(ids))
    locked = free.with_for_update(skip_locked=True).scalar_subquery()
    return (
        delete(JOBS)
        .where(JOB.id == any_(func.array(locked, type_=_IDS)))
        .returning(JOB.id)
        .cte("pruned")
    )


def _locked(wanted: Select[Any], pruned: CTE) -> ColumnElement[Any]:
    kept = wanted.except_(select(pruned.c.id)).subquery("kept")
    return select(func.array_agg(kept.c.id, type_=_IDS)).scalar_subquery().label("locked")
