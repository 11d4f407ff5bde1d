"""Give back: move claimed jobs that this node won't run from `executing` to `available`.

The attempt is not spent. A job that was cancelled while it was claimed becomes `cancelled`.
"""

from datetime import datetime
from functools import lru_cache

from sqlalchemy import (
    BigInteger,
    Executable,
    Text,
    all_,
    any_,
    bindparam,
    case,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..clock import database_now
from ..models import JobState
from .announce import notify, queue_news
from .cancel_mark import marked
from .states import constant, state_in
from .tables import JOB, JOBS


@lru_cache(maxsize=64)
def give_back(*, prefix: str | None = None, now: datetime | None = None) -> Executable:
    """Give back the jobs that `producer` claimed in `queue_name`, except those in `running`.

    Returns a row with the id of each. Jobs that another transaction locks are skipped. No fence is
    needed: only this producer claims under its uuid, and it does not claim meanwhile.
    """
    claimed = (
        select(JOB.id)
        .where(state_in(JobState.EXECUTING), JOB.queue == bindparam("queue_name", type_=Text))
        .where(JOB.attempted_by[2] == bindparam("producer", type_=Text))
        .where(JOB.id != all_(bindparam("running", type_=ARRAY(BigInteger))))
        .order_by(JOB.id)
        .with_for_update(key_share=True, skip_locked=True)
    )
    returned = (
        update(JOBS)
        .where(JOB.id == any_(func.array(claimed.scalar_subquery(), type_=ARRAY(BigInteger))))
        .values(
            state=case(
                (marked(), constant(JobState.CANCELLED)), else_=constant(JobState.AVAILABLE)
            ),
            attempt=case(
                (marked(), JOB.attempt),
                # The claim of a job that had no attempt left did not count one.
                (JOB.attempted_by[4].is_not(None), JOB.attempt),
                else_=func.greatest(JOB.attempt - 1, 0),
            ),
            cancelled_at=case((marked(), database_now(now)), else_=JOB.cancelled_at),
        )
        .returning(JOB.id, JOB.queue, JOB.state)
        .cte("returned")
    )
    queues = (
        select(returned.c.queue)
        .where(returned.c.state == constant(JobState.AVAILABLE))
        .distinct()
        .subquery("queues")
    )
    sent = notify(queue_news(queues.c.queue), prefix).subquery()
    return select(returned.c.id, select(func.count()).select_from(sent).scalar_subquery())
