"""Turn the result or the error of a worker into an outcome, an `Ack`."""

from collections.abc import Mapping
from typing import Any

from ..clock import LONGEST_INTERVAL
from ..events import BackoffFailed
from ..models import Job, JobState, validation
from ..models.recorded import RECORDED_AS
from ..statements.acknowledge import Ack
from ..workers import on_error
from ..workers.backoff import jittery_clamped
from ..workers.outcomes import Cancel, RateLimited, Record, RetryAfter, Snooze, refuse_class
from ..workers.registry import find
from .attempt import Attempt
from .service import Emit
from .traceback_text import describe

LONGEST_ERROR = 20_000
"""The most characters of an error that are stored, half from its beginning, half from its end."""


def success(attempt: Attempt, result: Any) -> Ack:
    """The outcome for a result of the worker; `TypeError` or `ValueError` if it is invalid."""
    match result:
        case None:
            return attempt.ack(JobState.COMPLETED)
        case Cancel(reason=reason):
            return attempt.ack(JobState.CANCELLED, error=storable(str(reason)))
        case Snooze() if attempt.cancelled:
            return attempt.ack(JobState.CANCELLED)
        case Snooze(seconds=seconds):
            delay = min(validation.delay("Snooze", seconds).total_seconds(), LONGEST_INTERVAL)
            count = {"snoozed": _snoozed(attempt.job) + 1}
            return attempt.ack(JobState.SCHEDULED, delay=delay, spent=False, meta=count)
        case Record(value=value):
            meta = {"recorded": RECORDED_AS, "return": value}
            return attempt.ack(JobState.COMPLETED, meta=meta)
        case _:
            refuse_class(attempt.job.worker, result)
            return attempt.ack(JobState.COMPLETED)


def rate_limited(attempt: Attempt, error: RateLimited) -> Ack:
    """The outcome of a job whose service takes no more requests for a while: a snooze."""
    if attempt.cancelled:
        return attempt.ack(JobState.CANCELLED)
    delay = min(error.retry_after, LONGEST_INTERVAL)
    count = {"snoozed": _snoozed(attempt.job) + 1}
    return attempt.ack(JobState.SCHEDULED, delay=delay, spent=False, meta=count, holds=delay)


def failure(attempt: Attempt, error: BaseException, emit: Emit) -> Ack:
    """The outcome for an error of the worker."""
    text = describe(error)
    job = attempt.job
    known = find(job.worker)
    verdict = on_error.verdict(known.declaration, error) if known else "retry"
    if attempt.cancelled or verdict == "cancel":
        return attempt.ack(JobState.CANCELLED, error=storable(text))
    if job.attempt >= job.max_attempts or verdict == "discard":
        return attempt.ack(JobState.DISCARDED, error=storable(text))
    if isinstance(error, RetryAfter):
        delay = min(error.seconds, LONGEST_INTERVAL)
        return attempt.ack(JobState.RETRYABLE, delay=delay, error=storable(text))
    delay = jittery_clamped(job.attempt, job.max_attempts)
    if attempt.worker is not None:
        try:
            chosen = validation.delay("backoff", attempt.worker.backoff(attempt.copy()))
            delay = min(chosen.total_seconds(), LONGEST_INTERVAL)
        except BaseException as wrong:
            text += f"\nbackoff() of the worker failed, so the default applies:\n{describe(wrong)}"
            emit("backoff_failed", BackoffFailed(job, delay, wrong))
    return attempt.ack(JobState.RETRYABLE, delay=delay, error=storable(text))


def storable(text: str) -> str:
    """A text that PostgreSQL can store: valid Unicode without NUL, and not too long."""
    if len(text) > LONGEST_ERROR:
        half = LONGEST_ERROR // 2
        left_out = len(text) - 2 * half
        text = f"{text[:half]}\n... {left_out} characters left out ...\n{text[-half:]}"
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def _snoozed(job: Job) -> int:
    # The user or other programs may have written any JSON into the meta.
    count = job.meta.get("snoozed") if isinstance(job.meta, Mapping) else None
    return count if isinstance(count, int) else 0
