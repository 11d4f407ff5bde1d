"""Ask whether jobs are available, without claiming any."""

from functools import lru_cache

from sqlalchemy import Select, Text, any_, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY

from ..models import JobState
from .states import state_in
from .tables import JOB


@lru_cache(maxsize=1)
def any_available() -> Select[bool]:
    """Whether any job of the queues in `queue_names` is available."""
    queues = bindparam("queue_names", type_=ARRAY(Text))
    found = select(JOB.id).where(state_in(JobState.AVAILABLE), JOB.queue == any_(queues))
    return select(found.exists())
