"""Prune: delete finished jobs that are past their retention, a batch at a time."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Executable,
    Float,
    Integer,
    Select,
    Text,
    all_,
    any_,
    bindparam,
    delete,
    false,
    func,
    or_,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..clock import database_now, interval
from ..models import Job, JobState
from ..models.types import UTCDateTime
from .states import state_in

FIRST = (datetime(1, 1, 1, tzinfo=UTC), 0)
"""A time and an id, as `after`, before those of all jobs."""

LOCK_TIMEOUT = "500ms"
"""How long a deletion waits for rows that refer to the jobs, and that somebody has locked."""

_IDS = ARRAY(BigInteger)
_FINISHED_AT = {
    JobState.COMPLETED: Job.completed_at,
    JobState.CANCELLED: Job.cancelled_at,
    JobState.DISCARDED: Job.discarded_at,
}


@lru_cache(maxsize=16)
def prune(state: JobState, *, named: bool, now: datetime | None = None) -> Executable:
    """Delete up to `batch` of the jobs that are `expiring`.

    Returns one row: how many were `deleted`, whether there may be `more`, the position of the
    last job that was read (`last_at` and `last_id`), the ids of jobs that somebody has `locked`
    (NULL for none), and the instant `until` which all jobs were read unless there are more.
    """
    # Set first, in the statement's own transaction: a deletion that waits holds its other locks.
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
def prune_listed(state: JobState, *, now: datetime | None = None) -> Executable:
    """Delete the jobs in `state` whose ids are `ids`, if they finished more than `age` seconds ago.

    Returns one row: how many were `deleted`, and the ids of jobs that somebody has `locked`
    (NULL for none).
    """
    listed = bindparam("ids", type_=_IDS)
    wanted = select(Job.id).where(*_finished(state, now), Job.id == any_(listed))
    pruned = _pruned(state, listed, now)
    count = select(func.count()).select_from(pruned).scalar_subquery()
    return select(count.label("deleted"), _locked(wanted, pruned))


@lru_cache(maxsize=16)
def expiring(state: JobState, *, named: bool, now: datetime | None = None) -> Executable:
    """Select the next jobs that finished in `state` more than `age` seconds ago.

    Among the first `scan` of all workers behind `after_at` and `after_id`, up to `batch` jobs that
    are `wanted`: of the `workers` if they are `named`, and of all other workers if not. A rule thus
    reads the jobs of other workers in parts, and each of them once. The row of the `last` job of
    such a part is returned too, even if it is not wanted: there may be more jobs behind it.

    Returns `id`, `finished_at`, `wanted`, `last`, and the `number` in the part.
    """
    selected: Executable = _expiring(state, named, now)
    return selected


@lru_cache(maxsize=16)
def expired(state: JobState, *, named: bool, now: datetime | None = None) -> Executable:
    """Select the `id` of up to `batch` jobs that finished in `state` more than `age` seconds ago.

    The jobs are of the `workers` if they are `named`, and of all other workers if not. The oldest
    come first.
    """
    at = _FINISHED_AT[state]
    jobs = select(Job.id).where(*_finished(state, now), _is_wanted(named))
    return jobs.order_by(at, Job.id).limit(bindparam("batch", type_=Integer))


def _expiring(state: JobState, named: bool, now: datetime | None) -> Any:
    order = (_FINISHED_AT[state], Job.id)
    after = bindparam("after_at", type_=UTCDateTime), bindparam("after_id", type_=BigInteger)
    scan = bindparam("scan", type_=Integer)
    part = (
        select(
            Job.id,
            order[0].label("finished_at"),
            _is_wanted(named).label("wanted"),
            func.row_number().over(order_by=order).label("number"),
        )
        .where(*_finished(state, now), tuple_(*order) > tuple_(*after))
        .order_by(*order)
        # Unknown to the planner, which would otherwise sort all jobs of a table not yet analyzed.
        .limit(select(scan).scalar_subquery())
        .subquery("part")
    )
    last = part.c.number == scan
    return (
        select(*part.c, last.label("last"))
        .where(or_(part.c.wanted, last))
        # Not by the number: the server would read the whole part to sort it.
        .order_by(part.c.finished_at, part.c.id)
        .limit(bindparam("batch", type_=Integer))
    )


def _finished(state: JobState, now: datetime | None) -> tuple[ColumnElement[bool], ...]:
    return state_in(state), _FINISHED_AT[state] < _cutoff(now)


def _cutoff(now: datetime | None) -> ColumnElement[datetime]:
    return type_coerce(database_now(now) - interval(bindparam("age", type_=Float)), UTCDateTime())


def _is_wanted(named: bool) -> ColumnElement[bool]:
    workers = bindparam("workers", type_=ARRAY(Text))
    return Job.worker == any_(workers) if named else Job.worker != all_(workers)


def _pruned(state: JobState, ids: Any, now: datetime | None) -> CTE:
    free = select(Job.id).where(*_finished(state, now), Job.id == any_(ids))
    locked = free.with_for_update(skip_locked=True).scalar_subquery()
    return (
        delete(Job)
        .where(Job.id == any_(func.array(locked, type_=_IDS)))
        .returning(Job.id)
        .cte("pruned")
    )


def _locked(wanted: Select[Any], pruned: CTE) -> ColumnElement[Any]:
    kept = wanted.except_(select(pruned.c.id)).subquery("kept")
    return select(func.array_agg(kept.c.id, type_=_IDS)).scalar_subquery().label("locked")
