"""Prune: delete finished jobs that are past their retention, a batch at a time."""

from datetime import datetime
from functools import lru_cache

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
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..clock import database_now, interval
from ..models import Job, JobState
from .states import state_in

_FINISHED_AT = {
    JobState.COMPLETED: Job.completed_at,
    JobState.CANCELLED: Job.cancelled_at,
    JobState.DISCARDED: Job.discarded_at,
}


@lru_cache(maxsize=16)
def prune(state: JobState, *, named: bool, now: datetime | None = None) -> Executable:
    """Delete up to `batch` jobs that finished in `state` more than `age` seconds ago.

    Those of the `workers`, if they are `named`; otherwise those of all the others. Returns one row
    with their number. Jobs that somebody has locked are left to the next time.
    """
    at = _FINISHED_AT[state]
    workers = bindparam("workers", type_=ARRAY(Text))
    old = (
        select(Job.id)
        .where(state_in(state))
        .where(Job.worker == any_(workers) if named else Job.worker != all_(workers))
        .where(at < database_now(now) - interval(bindparam("age", type_=Float)))
        .order_by(at)
        .limit(bindparam("batch", type_=Integer))
        .with_for_update(skip_locked=True)
    )
    pruned = (
        delete(Job)
        .where(Job.id == any_(func.array(old.scalar_subquery(), type_=ARRAY(BigInteger))))
        .returning(Job.id)
        .cte("pruned")
    )
    return select(func.count().label("count")).select_from(pruned)
