"""`JobFactory`: make jobs in any state for tests, with factory-boy (extra `testing`)."""

from datetime import timedelta
from typing import Any

try:
    import factory
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "oban_sqla.testing.factory needs factory-boy: pip install 'oban-sqla[testing]'",
        name=missing.name,
    ) from missing

from ..clock import client_now
from ..config.worker_names import name_of
from ..models import Job, JobState

NODE = ("some-node", "0b3c5d8e-0000-4000-8000-000000000000")

# Columns that only the library or the database writes, so `Job()` does not take them.
_LATER = (
    "attempt",
    "attempted_at",
    "attempted_by",
    "cancelled_at",
    "completed_at",
    "discarded_at",
    "errors",
    "inserted_at",
)

_now = factory.LazyFunction(client_now)


def _in(delay: timedelta) -> Any:
    return factory.LazyFunction(lambda: client_now() + delay)


def _error(attempt: int) -> dict[str, Any]:
    return {"attempt": attempt, "at": "2026-01-01T00:00:00Z", "error": "boom"}


class JobFactory(factory.Factory[Job]):
    """Make a job in a given state: `JobFactory()` waits, `JobFactory(executing=True)` runs.

    There is a trait for each state: available, scheduled, suspended, executing, retryable,
    completed, discarded and cancelled. The factory takes the arguments of `Job`, and all other
    columns except the id. `worker` may also be a class or a job function. Add the job to any
    session.
    """

    class Meta:
        model = Job

    class Params:
        available = factory.Trait(state=JobState.AVAILABLE)
        scheduled = factory.Trait(state=JobState.SCHEDULED, scheduled_at=_in(timedelta(hours=1)))
        suspended = factory.Trait(state=JobState.SUSPENDED)
        executing = factory.Trait(
            state=JobState.EXECUTING, attempt=1, attempted_at=_now, attempted_by=NODE
        )
        retryable = factory.Trait(
            state=JobState.RETRYABLE,
            attempt=1,
            attempted_at=_now,
            attempted_by=NODE,
            scheduled_at=_in(timedelta(minutes=1)),
            errors=[_error(1)],
        )
        completed = factory.Trait(
            state=JobState.COMPLETED,
            attempt=1,
            attempted_at=_now,
            attempted_by=NODE,
            completed_at=_now,
        )
        discarded = factory.Trait(
            state=JobState.DISCARDED,
            attempt=1,
            max_attempts=1,
            attempted_at=_now,
            attempted_by=NODE,
            errors=[_error(1)],
            discarded_at=_now,
        )
        cancelled = factory.Trait(state=JobState.CANCELLED, cancelled_at=_now)

    # For a trait without a value, factory-boy formats an error that no one reads, which takes 1 ms.
    available = scheduled = suspended = executing = retryable = False
    completed = discarded = cancelled = False

    worker = "tests.Nobody"
    args = factory.Sequence(lambda n: {"n": n})
    queue = "default"

    @classmethod
    def _create(cls, model_class: type[Job], *args: Any, **kwargs: Any) -> Job:
        later = {key: kwargs.pop(key) for key in _LATER if key in kwargs}
        kwargs["worker"] = name_of(kwargs["worker"])
        job = model_class(*args, **kwargs)
        for key, value in later.items():
            setattr(job, key, list(value) if isinstance(value, tuple | list) else value)
        return job

    _build = _create
