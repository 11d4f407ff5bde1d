"""Log the attempts of jobs: a line for each attempt that ends."""

import logging
import math
import time
from weakref import WeakKeyDictionary

from ..events import (
    BackoffFailed,
    JobDeadlineMissed,
    JobException,
    JobLeftBehind,
    JobStop,
    JobUnconnected,
)
from ..models import JobState
from ..oban import Oban
from .facts import Facts, job_in_words, shorten
from .listeners import Listener

logger = logging.getLogger("oban_sqla.jobs")
node_logger = logging.getLogger("oban_sqla")

# Seconds between two warnings about jobs that get no connection.
QUIET = 60.0
_unconnected_at: WeakKeyDictionary[Oban, float] = WeakKeyDictionary()


def _job_stop(oban: Oban, stop: JobStop) -> None:
    cancelled = stop.state is JobState.CANCELLED
    if not logger.isEnabledFor(logging.INFO if cancelled else logging.DEBUG):
        return
    if stop.state is JobState.COMPLETED:
        logger.debug(
            "%s completed in %.3f s", job_in_words(stop.job), stop.duration, extra=Facts(oban, stop)
        )
    elif stop.state is JobState.SCHEDULED:
        logger.debug(
            "%s snoozed after %.3f s",
            job_in_words(stop.job),
            stop.duration,
            extra=Facts(oban, stop),
        )
    else:
        asked = stop.job.cancelled()
        logger.info(
            "%s was cancelled %s after %.3f s",
            job_in_words(stop.job),
            "on request" if asked else "by its worker",
            stop.duration,
            extra=Facts(oban, stop),
        )


def _job_exception(oban: Oban, exception: JobException) -> None:
    job, error = exception.job, exception.error
    what = f"{type(error).__name__}: {shorten(error)}"
    if exception.state is JobState.DISCARDED:
        logger.error(
            "%s failed for the last time, so it is discarded: %s",
            job_in_words(job),
            what,
            extra=Facts(oban, exception),
        )
    elif exception.state is JobState.CANCELLED:
        logger.info(
            "%s failed, and is cancelled%s: %s",
            job_in_words(job),
            " on request" if job.cancelled() else "",
            what,
            extra=Facts(oban, exception),
        )
    else:
        logger.info(
            "%s failed, and will be tried again: %s",
            job_in_words(job),
            what,
            extra=Facts(oban, exception),
        )


def _job_deadline_missed(oban: Oban, missed: JobDeadlineMissed) -> None:
    logger.info(
        "%s is cancelled: it had not begun by its deadline, %s",
        job_in_words(missed.job),
        missed.deadline.isoformat(),
        extra=Facts(oban, missed),
    )


def _backoff_failed(oban: Oban, failed: BackoffFailed) -> None:
    logger.warning(
        "%s: its backoff() failed, so the next attempt is in %.0f s: %s: %s",
        job_in_words(failed.job),
        failed.delay,
        type(failed.error).__name__,
        shorten(failed.error),
        extra=Facts(oban, failed),
    )


def _job_left_behind(oban: Oban, left: JobLeftBehind) -> None:
    node_logger.warning(
        "queue %s: job %d (%s) has ended, but its thread or task still runs and takes a slot of"
        " the queue; such slots: %d",
        left.job.queue,
        left.job.id,
        left.job.worker,
        left.count,
        extra=Facts(oban, left),
    )


def _job_unconnected(oban: Oban, unconnected: JobUnconnected) -> None:
    # Many jobs wait for the same cause, so one warning a minute is enough.
    now = time.monotonic()
    told = now - _unconnected_at.get(oban, -math.inf) < QUIET
    if not told:
        _unconnected_at[oban] = now
    logger.log(
        logging.DEBUG if told else logging.WARNING,
        "%s got no connection for its session; the job is tried again in %.0f s, and the attempt is"
        " not spent: %s",
        job_in_words(unconnected.job),
        unconnected.delay,
        shorten(unconnected.error),
        extra=Facts(oban, unconnected),
    )


LISTENERS: tuple[Listener, ...] = (
    (Oban, "job_stop", _job_stop),
    (Oban, "job_exception", _job_exception),
    (Oban, "job_deadline_missed", _job_deadline_missed),
    (Oban, "backoff_failed", _backoff_failed),
    (Oban, "job_left_behind", _job_left_behind),
    (Oban, "job_unconnected", _job_unconnected),
)
