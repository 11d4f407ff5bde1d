"""Delete jobs, except executing ones."""

from sqlalchemy import Executable
from sqlalchemy import delete as delete_from

from ..models import Job, JobState
from ..runtime.following import has_key_followed
from .lock import locked

DELETABLE = tuple(state for state in JobState if state is not JobState.EXECUTING)


def delete() -> Executable:
    """Delete the jobs of `ids` that are not executing. Returns the id of each."""
    return (
        delete_from(Job)
        .where(locked(*DELETABLE))
        .returning(Job.id, has_key_followed().label("followed"))
    )
