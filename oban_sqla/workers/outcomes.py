"""What `process` may return, besides anything else, which completes the job, and `RetryAfter`."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..models import validation


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop for good: the job is `cancelled`, with the reason among its errors."""

    reason: str


@dataclass(frozen=True, slots=True)
class Snooze:
    """Run again later, without spending the attempt: the job is `scheduled` anew.

    `seconds` is a number of seconds or a `timedelta`; `ValueError` if it is negative or infinite.
    """

    seconds: float | timedelta

    def __post_init__(self) -> None:
        validation.delay("Snooze(seconds)", self.seconds)


@dataclass(frozen=True, slots=True)
class Record:
    """Complete the job and keep a value, any JSON, to be read as `job.recorded`.

    `TypeError` or `ValueError`, which fail the attempt, if the value is not JSON.
    """

    value: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", validation.json_value("Record(value)", self.value))


def refuse_class(worker: str, result: object) -> None:
    """`TypeError` for a result that is the class of an outcome: it would complete the job."""
    if isinstance(result, type) and issubclass(result, (Cancel, Snooze, Record)):
        raise TypeError(
            f"{worker} returned the class {result.__name__}, which is no outcome: return"
            f" {result.__name__}(...)"
        )


class RetryAfter(Exception):  # noqa: N818 - it says what to do, as the outcomes do
    """Raise it to fail the attempt and choose when the next one begins.

    The attempt is spent, and after the last one the job is discarded. `backoff`, `retry_on`,
    `discard_on` and `cancel_on` of the worker don't apply. Raise it `from` the error that is the
    reason, which is then recorded, too.

    `seconds` is a number of seconds or a `timedelta`; `ValueError` if it is negative or infinite.
    """

    __module__ = "oban_sqla"

    def __init__(self, seconds: float | timedelta) -> None:
        self.seconds = validation.delay("RetryAfter(seconds)", seconds).total_seconds()
        super().__init__(f"retry after {self.seconds:g} s")
