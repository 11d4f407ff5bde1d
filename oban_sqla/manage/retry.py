"""Retry: move jobs to `available`, due now and with an attempt left."""

from datetime import datetime
from functools import lru_cache

from sqlalchemy import Executable, func, null, update

from ..clock import database_now
from ..models import Job, JobState, validation
from ..runtime.following import has_key_followed
from ..statements.cancel_mark import without_mark
from ..statements.states import constant
from .lock import locked

RETRYABLE = tuple(
    state for state in JobState if state not in (JobState.AVAILABLE, JobState.EXECUTING)
)
MOST = validation.ATTEMPTS[-1]


@lru_cache(maxsize=8)
def retry(*, now: datetime | None = None) -> Executable:
    """Retry the jobs of `ids` that are not available or executing. Returns the id and queue."""
    return (
        update(Job)
        .where(locked(*RETRYABLE))
        .values(
            state=constant(JobState.AVAILABLE),
            scheduled_at=database_now(now),
            # The columns are smallints. At their maximum, the last attempt is counted twice.
            attempt=func.least(Job.attempt, MOST - 1),
            max_attempts=func.greatest(Job.max_attempts, func.least(Job.attempt, MOST - 1) + 1),
            completed_at=null(),
            cancelled_at=null(),
            discarded_at=null(),
            meta=without_mark(),
        )
        .returning(Job.id, Job.queue, has_key_followed().label("followed"))
    )
