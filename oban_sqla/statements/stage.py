"""Stage: promote due `scheduled` and `retryable` jobs to `available`."""

from datetime import datetime
from functools import lru_cache

from sqlalchemy import (
    BigInteger,
    Executable,
    Integer,
    Text,
    any_,
    bindparam,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..clock import database_now, seconds
from ..models import Job, JobState
from ..models.state import STAGEABLE
from .announce import notify, queue_news
from .states import constant, state_in


@lru_cache(maxsize=64)
def stage(
    *, prefix: str | None = None, now: datetime | None = None, of_queues: bool = False
) -> Executable:
    """Promote up to `batch` due jobs of all queues, or of `queue_names`, and announce them.

    Returns one row: the number of `staged` jobs, their `queues` (NULL for none), `now` in seconds
    of the epoch by the database's clock, and `next_in`, the seconds until the next job is due (NULL
    when none is waiting). Jobs that another stager has locked are left to it.
    """
    time = database_now(now)
    named = [Job.queue == any_(bindparam("queue_names", type_=ARRAY(Text)))] if of_queues else []
    due = (
        select(Job.id)
        .where(state_in(*STAGEABLE), Job.scheduled_at <= time, *named)
        .order_by(Job.scheduled_at, Job.id)
        .limit(bindparam("batch", type_=Integer))
        .with_for_update(skip_locked=True)
    )
    staged = (
        update(Job)
        .where(Job.id == any_(func.array(due.scalar_subquery(), type_=ARRAY(BigInteger))))
        .values(state=constant(JobState.AVAILABLE))
        .returning(Job.queue)
        .cte("staged")
    )
    queues = select(staged.c.queue).distinct().subquery("queues")
    sent = notify(queue_news(queues.c.queue), prefix).subquery()
    # This part of the statement still sees the promoted jobs waiting: they are not after `time`.
    next_at = (
        select(Job.scheduled_at)
        .where(state_in(*STAGEABLE), Job.scheduled_at > time)
        .order_by(Job.scheduled_at)
        .limit(1)
        .scalar_subquery()
    )
    return select(
        select(func.count()).select_from(staged).scalar_subquery().label("staged"),
        select(func.array_agg(queues.c.queue, type_=ARRAY(Text))).scalar_subquery().label("queues"),
        seconds(time).label("now"),
        seconds(next_at - time).label("next_in"),
        select(func.count()).select_from(sent).scalar_subquery().label("sent"),
    )
