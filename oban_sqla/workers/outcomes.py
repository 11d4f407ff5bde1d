"""The outcomes that `process` may return. Any other value completes the job."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..models import validation


@dataclass(frozen=True, slots=True)
class Cancel:
    """End the job: it is `cancelled`, and its errors have the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Snooze:
    """Run the job again later. It is `scheduled`, and the attempt is not spent.

    `seconds` is a number of seconds or a `timedelta`; `ValueError` if it is negative or infinite.
    """

    seconds: float | timedelta

    def __post_init__(self) -> None:
        validation.delay("Snooze(seconds)", self.seconds)


@dataclass(frozen=True, slots=True)
class Record:
    """Complete the job, and store a JSON value that is read as `job.recorded`.

    `TypeError` or `ValueError` if the value is not JSON. The error fails the attempt.
    """

    value: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", validation.json_value("Record(value)", self.value))


def refuse_class(worker: str, result: object) -> None:
    """`TypeError` if the result is the class of an outcome, which would complete the job."""
    if isinstance(result, type) and issubclass(result, (Cancel, Snooze, Record)):
        raise TypeError(
            f"{worker} returned the class {result.__name__} instead of an instance: return"
            f" {result.__name__}(...)"
        )


class RetryAfter(Exception):  # noqa: N818 - named for what to do, like the outcomes
    """Raise this to fail the attempt and choose when the next attempt begins.

    The attempt is spent, and after the last attempt the job is discarded. `backoff`, `retry_on`,
    `discard_on` and `cancel_on` of the worker don't apply. To record the cause, too, raise this
    `from` the original error.

    `seconds` is a number of seconds or a `timedelta`; `ValueError` if it is negative or infinite.
    """

    __module__ = "oban_sqla"

    def __init__(self, seconds: float | timedelta) -> None:
        self.seconds = validation.delay("RetryAfter(seconds)", seconds).total_seconds()
        super().__init__(f"retry after {self.seconds:g} s")


class RateLimited(Exception):  # noqa: N818 - named for what it is, like the outcomes
    """Raise it when a service says "too many requests", such as an HTTP 429.

    The job runs again after `retry_after`, and its attempt is not spent. Until then, no job with
    the same rate starts on any node; without a rate, no job with the same key of its limit. A job
    of a worker that has neither only waits itself.

    `retry_after` is a number of seconds or a `timedelta`; `ValueError` if it is negative or
    infinite.
    """

    __module__ = "oban_sqla"

    def __init__(self, retry_after: float | timedelta) -> None:
        delay = validation.delay("RateLimited(retry_after)", retry_after)
        self.retry_after = delay.total_seconds()
        super().__init__(f"rate limited for {self.retry_after:g} s")
