"""Logging: listeners of the events, with all wording and levels.

The logger `oban_sqla` has incidents as warnings and errors, and the ends of incidents as INFO. An
outage of the database is one incident of a node; DEBUG has all failures during it. The logger
`oban_sqla.jobs` has a line for each job: ERROR if the job is discarded, INFO if it fails or is
cancelled, DEBUG if it completes. The logger `oban_sqla.queues` has a line a minute for each busy
queue. Records also have the data of the event as attributes, for formatters such as that of
`json_log`. `detach()` stops all logging.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from ..events import (
    AckStop,
    BackoffFailed,
    ClaimStop,
    DashboardAction,
    ElectStop,
    GiveBackStop,
    JobDeadlineMissed,
    JobException,
    JobLeftBehind,
    JobStop,
    JobUnconnected,
    OutcomeDelayed,
    OutcomeRefused,
    PoolTooSmall,
    PruneRefused,
    RescueStop,
    ServiceCancelled,
    WorkersUnfinished,
)
from ..models import JobState
from ..oban import Oban
from ..workers.unfinished import UNFINISHED
from . import activity, listeners, outage_log
from .facts import Facts as _Facts
from .facts import ids_in_words as _ids
from .facts import job_in_words as _of
from .facts import shorten as _shorten
from .listeners import Listener

logger = logging.getLogger("oban_sqla")
jobs_logger = logging.getLogger("oban_sqla.jobs")

# Seconds between two warnings about jobs that get no connection.
QUIET = 60.0
_unconnected_at: WeakKeyDictionary[Oban, float] = WeakKeyDictionary()


def attach() -> None:
    """Log the events of all instances. Importing `oban_sqla` calls this."""
    listeners.attach(_ALL)


def detach() -> None:
    """Log nothing."""
    listeners.detach(_ALL)


def _job_stop(oban: Oban, stop: JobStop) -> None:
    cancelled = stop.state is JobState.CANCELLED
    if not jobs_logger.isEnabledFor(logging.INFO if cancelled else logging.DEBUG):
        return
    if stop.state is JobState.COMPLETED:
        jobs_logger.debug(
            "%s completed in %.3f s", _of(stop.job), stop.duration, extra=_Facts(oban, stop)
        )
    elif stop.state is JobState.SCHEDULED:
        jobs_logger.debug(
            "%s snoozed after %.3f s", _of(stop.job), stop.duration, extra=_Facts(oban, stop)
        )
    else:
        asked = stop.job.cancelled()
        jobs_logger.info(
            "%s was cancelled %s after %.3f s",
            _of(stop.job),
            "on request" if asked else "by its worker",
            stop.duration,
            extra=_Facts(oban, stop),
        )


def _job_deadline_missed(oban: Oban, missed: JobDeadlineMissed) -> None:
    jobs_logger.info(
        "%s is cancelled: it had not begun by its deadline, %s",
        _of(missed.job),
        missed.deadline.isoformat(),
        extra=_Facts(oban, missed),
    )


def _job_exception(oban: Oban, exception: JobException) -> None:
    job, error = exception.job, exception.error
    what = f"{type(error).__name__}: {_shorten(error)}"
    if exception.state is JobState.DISCARDED:
        jobs_logger.error(
            "%s failed for the last time, so it is discarded: %s",
            _of(job),
            what,
            extra=_Facts(oban, exception),
        )
    elif exception.state is JobState.CANCELLED:
        jobs_logger.info(
            "%s failed, and is cancelled%s: %s",
            _of(job),
            " on request" if job.cancelled() else "",
            what,
            extra=_Facts(oban, exception),
        )
    else:
        jobs_logger.info(
            "%s failed, and will be tried again: %s", _of(job), what, extra=_Facts(oban, exception)
        )


def _backoff_failed(oban: Oban, failed: BackoffFailed) -> None:
    jobs_logger.warning(
        "%s: its backoff() failed, so the next attempt is in %.0f s: %s: %s",
        _of(failed.job),
        failed.delay,
        type(failed.error).__name__,
        _shorten(failed.error),
        extra=_Facts(oban, failed),
    )


def _job_left_behind(oban: Oban, left: JobLeftBehind) -> None:
    logger.warning(
        "queue %s: job %d (%s) has ended, but its thread or task still runs and takes a place of"
        " the queue; such places: %d",
        left.job.queue,
        left.job.id,
        left.job.worker,
        left.count,
        extra=_Facts(oban, left),
    )


def _claim_stop(oban: Oban, stop: ClaimStop) -> None:
    if stop.discarded:
        logger.warning(
            "queue %s: discarded jobs that were available but had no attempt left: %s",
            stop.queue,
            _ids(stop.discarded),
            extra=_Facts(oban, stop),
        )


def _ack_stop(oban: Oban, stop: AckStop) -> None:
    if stop.dropped:
        logger.warning(
            "queue %s: dropped the outcomes of jobs that were deleted, or claimed again, while they"
            " ran: %s",
            stop.queue,
            _ids(stop.dropped),
            extra=_Facts(oban, stop),
        )


def _outcome_refused(oban: Oban, refused: OutcomeRefused) -> None:
    logger.error(
        "queue %s: the attempt of job %s failed, since the database refused its outcome: %s",
        refused.queue,
        refused.id,
        _shorten(refused.error),
        extra=_Facts(oban, refused),
    )


def _outcome_delayed(oban: Oban, delayed: OutcomeDelayed) -> None:
    logger.warning(
        "queue %s: the outcome of job %s can't be written, trying again until it succeeds: %s",
        delayed.queue,
        delayed.id,
        delayed.reason,
        extra=_Facts(oban, delayed),
    )


def _give_back_stop(oban: Oban, stop: GiveBackStop) -> None:
    begun = tuple(sorted({*stop.ids} - {*stop.held}))
    if begun:
        logger.warning(
            "queue %s: gave back claimed jobs: %s",
            stop.queue,
            _ids(begun),
            extra=_Facts(oban, stop),
        )
    else:
        logger.debug(
            "queue %s: gave back jobs that had not started: %s",
            stop.queue,
            _ids(stop.held),
            extra=_Facts(oban, stop),
        )


def _elect_stop(oban: Oban, stop: ElectStop) -> None:
    if stop.changed and stop.leader:
        logger.info("%s: node %s is the leader now", oban.name, oban.node, extra=_Facts(oban, stop))
    elif stop.changed:
        logger.info(
            "%s: node %s is not the leader any more", oban.name, oban.node, extra=_Facts(oban, stop)
        )


def _rescue_stop(oban: Oban, stop: RescueStop) -> None:
    if stop.rescued:
        logger.warning(
            "%s: rescued jobs of nodes that died: %s",
            oban.name,
            _ids(stop.rescued),
            extra=_Facts(oban, stop),
        )
    if stop.discarded:
        logger.warning(
            "%s: discarded jobs of nodes that died, which had no attempt left: %s",
            oban.name,
            _ids(stop.discarded),
            extra=_Facts(oban, stop),
        )
    if stop.cancelled:
        logger.info(
            "%s: cancelled jobs of nodes that died, on request: %s",
            oban.name,
            _ids(stop.cancelled),
            extra=_Facts(oban, stop),
        )


def _prune_refused(oban: Oban, refused: PruneRefused) -> None:
    logger.warning(
        "%s: can't delete %s jobs that are past their retention: %s: %s",
        oban.name,
        refused.state.value,
        _ids(refused.ids),
        _shorten(refused.error),
        extra=_Facts(oban, refused),
    )


def _pool_too_small(oban: Oban, pool: PoolTooSmall) -> None:
    logger.warning(
        "%s: the engine's pool opens at most %d connections, but the jobs with a session and the"
        " node itself may use %d at once, so jobs wait: make the engine with pool_size=%d, or lower"
        " the limits of the queues",
        oban.name,
        pool.size,
        pool.needed,
        pool.needed,
        extra=_Facts(oban, pool),
    )


def _workers_unfinished(oban: Oban, found: WorkersUnfinished) -> None:
    for worker in found.workers:
        logger.warning("%s: %s %s", oban.name, worker, UNFINISHED, extra=_Facts(oban, found))


def _job_unconnected(oban: Oban, unconnected: JobUnconnected) -> None:
    # Many jobs wait for the same cause, so one warning a minute is enough.
    now = time.monotonic()
    told = now - _unconnected_at.get(oban, -math.inf) < QUIET
    if not told:
        _unconnected_at[oban] = now
    jobs_logger.log(
        logging.DEBUG if told else logging.WARNING,
        "%s got no connection for its session; the job is tried again in %.0f s, and the attempt is"
        " not spent: %s",
        _of(unconnected.job),
        unconnected.delay,
        _shorten(unconnected.error),
        extra=_Facts(oban, unconnected),
    )


def _dashboard_action(oban: Oban, done: DashboardAction) -> None:
    logger.info(
        "%s: %s did %s in the dashboard: %s (%d)",
        oban.name,
        done.user or "somebody",
        done.action,
        done.target,
        done.count,
        extra=_Facts(oban, done),
    )


def _service_cancelled(oban: Oban, cancelled: ServiceCancelled) -> None:
    logger.warning(
        "%s: %s did not stop within %.1f s and was cancelled",
        oban.name,
        cancelled.service,
        cancelled.grace,
        extra=_Facts(oban, cancelled),
    )


_LISTENERS: dict[str, Callable[[Any, Any], None]] = {
    "job_stop": _job_stop,
    "job_exception": _job_exception,
    "backoff_failed": _backoff_failed,
    "job_left_behind": _job_left_behind,
    "claim_stop": _claim_stop,
    "ack_stop": _ack_stop,
    "outcome_refused": _outcome_refused,
    "outcome_delayed": _outcome_delayed,
    "give_back_stop": _give_back_stop,
    "elect_stop": _elect_stop,
    "rescue_stop": _rescue_stop,
    "prune_refused": _prune_refused,
    "job_deadline_missed": _job_deadline_missed,
    "job_unconnected": _job_unconnected,
    "pool_too_small": _pool_too_small,
    "workers_unfinished": _workers_unfinished,
    "dashboard_action": _dashboard_action,
    "service_cancelled": _service_cancelled,
}
_ALL: tuple[Listener, ...] = (
    *((Oban, name, listener) for name, listener in _LISTENERS.items()),
    *outage_log.LISTENERS,
    *activity.LISTENERS,
)
