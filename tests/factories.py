"""Rows for tests, with factory-boy."""

from datetime import UTC, datetime, timedelta

import factory

from oban_sqla import Job, JobState


class JobFactory(factory.Factory):
    """A job as its row would be in a state: `JobFactory(executing=True)`. Add it to a session."""

    class Meta:
        model = Job

    class Params:
        scheduled = factory.Trait(
            state=JobState.SCHEDULED,
            scheduled_at=factory.LazyFunction(lambda: datetime.now(UTC) + timedelta(hours=1)),
        )
        executing = factory.Trait(
            state=JobState.EXECUTING,
            attempt=1,
            attempted_at=factory.LazyFunction(lambda: datetime.now(UTC)),
            attempted_by=["some-node", "0b3c5d8e-0000-4000-8000-000000000000"],
        )
        retryable = factory.Trait(
            state=JobState.RETRYABLE,
            attempt=1,
            scheduled_at=factory.LazyFunction(lambda: datetime.now(UTC) + timedelta(minutes=1)),
            errors=[{"attempt": 1, "at": "2026-01-01T00:00:00Z", "error": "boom"}],
        )
        completed = factory.Trait(
            state=JobState.COMPLETED,
            attempt=1,
            completed_at=factory.LazyFunction(lambda: datetime.now(UTC)),
        )

    worker = "tests.Nobody"
    args = factory.Sequence(lambda n: {"n": n})
    queue = "default"

    @classmethod
    def _create(cls, model_class, *args, **kwargs):
        # What only the library sets is set as on any mapped instance.
        later = {
            key: kwargs.pop(key)
            for key in ("attempt", "attempted_at", "attempted_by", "errors", "completed_at")
            if key in kwargs
        }
        job = model_class(*args, **kwargs)
        for key, value in later.items():
            setattr(job, key, value)
        return job

    _build = _create
