"""Claim jobs of a queue that has limits over all nodes, but no keys."""

from functools import lru_cache

from sqlalchemy import Executable, Integer, bindparam, cast, func, select, true

from ..clock import database_now
from ..models import Job, JobState
from ..statements.claim import (
    behind_position,
    claim_order,
    executing,
    first_available,
    of_queue,
)
from ..statements.claimed import claimed_columns
from ..statements.custom_plan import planned_anew
from ..statements.states import state_in


@lru_cache(maxsize=1)
def claim_within_global_limit() -> Executable:
    """`claim_of_queue` so that at most `global_limit` jobs of the queue execute.

    The statement must run after `lock_queue`. Returns at least one row: the columns of a job, NULL
    if there is none, and `room`, the number of jobs that the limit allowed to claim.
    """
    most = bindparam("global_limit", type_=Integer)
    # Count no further than the limit, since more jobs do not change the result.
    counted = select(Job.id).where(state_in(JobState.EXECUTING), of_queue()).limit(most).subquery()
    count = select(func.count()).select_from(counted).scalar_subquery()
    room = select(cast(most - count, Integer).label("room")).cte("free")
    limit = func.least(bindparam("limit", type_=Integer), select(room.c.room).scalar_subquery())
    chosen = first_available(of_queue(), behind_position(), planned_anew(), limit=limit)
    jobs = executing(database_now(), chosen)
    return (
        select(*claimed_columns(jobs.c), room.c.room)
        .select_from(room.outerjoin(jobs, true()))
        .order_by(*claim_order(jobs.c))
    )
