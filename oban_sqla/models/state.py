"""The states of a job and the moves between them, declared once."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class JobState(StrEnum):
    """The states of Oban's `oban_job_state`, in the order of the database's enum."""

    AVAILABLE = "available"
    """Waiting for a producer."""
    SCHEDULED = "scheduled"
    """Waiting for `scheduled_at`."""
    SUSPENDED = "suspended"
    """Held back, for example until the deps of a workflow step have ended."""
    EXECUTING = "executing"
    """Claimed by a producer."""
    RETRYABLE = "retryable"
    """Failed, and waiting for its next attempt at `scheduled_at`."""
    COMPLETED = "completed"
    DISCARDED = "discarded"
    """Failed for the last time."""
    CANCELLED = "cancelled"


_S = JobState

LEGAL_MOVES: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        _S.AVAILABLE: frozenset({_S.EXECUTING, _S.SCHEDULED, _S.DISCARDED, _S.CANCELLED}),
        _S.SCHEDULED: frozenset({_S.AVAILABLE, _S.CANCELLED}),
        _S.SUSPENDED: frozenset({_S.AVAILABLE, _S.SCHEDULED, _S.CANCELLED}),
        _S.EXECUTING: frozenset(
            {_S.AVAILABLE, _S.SCHEDULED, _S.RETRYABLE, _S.COMPLETED, _S.DISCARDED, _S.CANCELLED}
        ),
        _S.RETRYABLE: frozenset({_S.AVAILABLE, _S.CANCELLED}),
        _S.COMPLETED: frozenset({_S.AVAILABLE}),
        _S.DISCARDED: frozenset({_S.AVAILABLE}),
        _S.CANCELLED: frozenset({_S.AVAILABLE}),
    }
)

NEW = (JobState.AVAILABLE, JobState.SCHEDULED, JobState.SUSPENDED)
"""The states in which a job begins."""

STAGEABLE = (JobState.SCHEDULED, JobState.RETRYABLE)
"""The stager promotes jobs in these states to `available` when they are due."""

FINISHED = (JobState.COMPLETED, JobState.DISCARDED, JobState.CANCELLED)
"""The final states: a job leaves them only by a retry."""
