"""Prune: delete finished jobs that are past their retention, a batch at a time."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Executable,
    Float,
    Integer,
    Text,
    all_,
    any_,
    bindparam,
    delete,
    func,
    select,
    tuple_,
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

_FINISHED_AT = {
    JobState.COMPLETED: Job.completed_at,
    JobState.CANCELLED: Job.cancelled_at,
    JobState.DISCARDED: Job.discarded_at,
}


@lru_cache(maxsize=16)
def prune(state: JobState, *, named: bool, now: datetime | None = None) -> Executable:
    """Delete up to `batch` of the `expired` jobs. Returns one row with their number.

    Jobs that somebody has locked are left to the next time.
    """
    # Set first, in the statement's own transaction: a deletion that waits holds its other locks.
    limit = select(func.set_config("lock_timeout", LOCK_TIMEOUT, True)).scalar_subquery()
    ids = _expired(state, named, now).with_only_columns(Job.id).where(limit.is_not(None))
    return _delete(ids.with_for_update(skip_locked=True))


@lru_cache(maxsize=4)
def prune_listed(state: JobState) -> Executable:
    """Delete the jobs in `state` whose ids are `ids`. Returns one row with their number.

    Jobs that somebody has locked are left to the next time.
    """
    listed = bindparam("ids", type_=ARRAY(BigInteger))
    ids = select(Job.id).where(Job.id == any_(listed)).where(state_in(state))
    return _delete(ids.with_for_update(skip_locked=True))


@lru_cache(maxsize=16)
def expired(state: JobState, *, named: bool, now: datetime | None = None) -> Executable:
    """Select `id` and `finished_at` of jobs that finished in `state` more than `age` seconds ago.

    Up to `batch` rows are returned. The jobs are of the `workers` if they are `named`, and of all
    other workers if not. The oldest come first, after those up to `after_at` and `after_id`.
    """
    selected: Executable = _expired(state, named, now)
    return selected


def _expired(state: JobState, named: bool, now: datetime | None) -> Any:
    at = _FINISHED_AT[state]
    workers = bindparam("workers", type_=ARRAY(Text))
    after = bindparam("after_at", type_=UTCDateTime), bindparam("after_id", type_=BigInteger)
    return (
        select(Job.id, at.label("finished_at"))
        .where(state_in(state))
        .where(Job.worker == any_(workers) if named else Job.worker != all_(workers))
        .where(at < database_now(now) - interval(bindparam("age", type_=Float)))
        .where(tuple_(at, Job.id) > tuple_(*after))
        .order_by(at, Job.id)
        .limit(bindparam("batch", type_=Integer))
    )


def _delete(ids: Any) -> Executable:
    pruned = (
        delete(Job)
        .where(Job.id == any_(func.array(ids.scalar_subquery(), type_=ARRAY(BigInteger))))
        .returning(Job.id)
        .cte("pruned")
    )
    return select(func.count().label("count")).select_from(pruned)
