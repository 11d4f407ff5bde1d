"""Cancel: move waiting jobs to `cancelled`, and mark running jobs, which may still complete."""

from datetime import datetime
from functools import lru_cache

from sqlalchemy import Executable, case, update

from ..clock import database_now
from ..models import Job, JobState
from ..models.state import FINISHED
from ..runtime.following import has_key_followed
from ..statements.cancel_mark import with_mark
from ..statements.states import constant, state_in
from .lock import locked

CANCELLABLE = tuple(state for state in JobState if state not in FINISHED)


@lru_cache(maxsize=8)
def cancel(*, now: datetime | None = None) -> Executable:
    """Cancel the unfinished jobs of `ids`. Returns the id and the state of each."""
    time = database_now(now)
    runs = state_in(JobState.EXECUTING)
    return (
        update(Job)
        .where(locked(*CANCELLABLE))
        .values(
            state=case((runs, Job.state), else_=constant(JobState.CANCELLED)),
            cancelled_at=case((runs, Job.cancelled_at), else_=time),
            meta=with_mark(time),
        )
        .returning(Job.id, Job.state, has_key_followed().label("followed"))
    )
