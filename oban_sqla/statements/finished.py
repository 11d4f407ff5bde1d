"""Which jobs are finished, for whoever waits for them."""

from collections.abc import Sequence

from sqlalchemy import Executable, select

from ..models import Job
from ..models.state import FINISHED
from .choose import one_of
from .states import state_in


def finished(ids: Sequence[int]) -> Executable:
    """Each of the jobs that is there: its `id`, whether it is `finished`, and all its columns."""
    return select(state_in(*FINISHED).label("finished"), *Job.__table__.c).where(one_of(ids))
