"""Which jobs are finished, for whoever waits for them; those who run them are told who waits."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, Executable, any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from ..models import Job
from ..models.state import FINISHED
from .states import state_in


def finished(ids: Sequence[int]) -> Executable:
    """Each of the jobs that is there: its `id`, whether it is `finished`, and all its columns."""
    return select(state_in(*FINISHED).label("finished"), *Job.__table__.c).where(
        Job.id == any_(literal(list(ids), ARRAY(BigInteger)))
    )
