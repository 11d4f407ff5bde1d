"""Make a claimed job, as a producer passes it to the executor."""

from datetime import UTC, datetime, timedelta
from typing import Any

from oban_sqla import Job, JobState
from oban_sqla.models.job import detached

CLAIMED_AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


def claimed(worker: str, args: dict[str, Any] | None = None, **columns: Any) -> Job:
    """A job in no session, with all its columns, that became due two seconds before the claim."""
    values: dict[str, Any] = {
        "id": 7,
        "state": JobState.EXECUTING,
        "queue": "default",
        "worker": worker,
        "attempt": 1,
        "max_attempts": 20,
        "priority": 0,
        "args": args or {},
        "meta": {},
        "tags": [],
        "errors": [],
        "attempted_by": ["node", "0b3c5d8e-0000-4000-8000-000000000000"],
        "inserted_at": CLAIMED_AT - timedelta(seconds=3),
        "scheduled_at": CLAIMED_AT - timedelta(seconds=2),
        "attempted_at": CLAIMED_AT,
        "cancelled_at": None,
        "completed_at": None,
        "discarded_at": None,
    }
    return detached(values | columns)
