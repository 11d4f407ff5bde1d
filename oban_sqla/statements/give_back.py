"""Give back: `executing` to `available`, the attempt restored, what won't be finished."""

from functools import lru_cache

from sqlalchemy import BigInteger, Executable, Text, all_, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from ..models import Job, JobState
from .announce import notify, queue_news
from .states import constant, state_in


@lru_cache(maxsize=64)
def give_back(*, prefix: str | None = None) -> Executable:
    """Give back what `producer` claimed in `queue_name`, except the ids it is still `running`.

    Returns a row with the id of each. The producer names itself, so it needs no fence: nobody else
    claims under its uuid, and it must not be claiming meanwhile.
    """
    returned = (
        update(Job)
        .where(state_in(JobState.EXECUTING), Job.queue == bindparam("queue_name", type_=Text))
        .where(Job.attempted_by[2] == bindparam("producer", type_=Text))
        .where(Job.id != all_(bindparam("running", type_=ARRAY(BigInteger))))
        .values(state=constant(JobState.AVAILABLE), attempt=func.greatest(Job.attempt - 1, 0))
        .returning(Job.id, Job.queue)
        .cte("returned")
    )
    queues = select(returned.c.queue).distinct().subquery("queues")
    sent = notify(queue_news(queues.c.queue), prefix).subquery()
    return select(returned.c.id, select(func.count()).select_from(sent).scalar_subquery())
