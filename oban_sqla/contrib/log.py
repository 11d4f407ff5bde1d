"""Logging: all wording and all levels, as listeners of the events.

The lines go to the logger `oban_sqla`: incidents as warnings and errors, restored things as INFO.
What comes of a job goes to its child `oban_sqla.jobs`, which may be turned down by itself: ERROR
when the job is discarded, INFO when it fails or is cancelled, DEBUG when it completes. A record has
the facts as attributes, too, for formatters like that of `json_log`. `detach()` ends it all.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import cache, cached_property
from typing import Any

from sqlalchemy import event

from ..dsn import hide_passwords
from ..events import (
    AckStop,
    ClaimStop,
    ElectStop,
    GiveBackStop,
    JobException,
    JobStop,
    JobUnconnected,
    NotifierLost,
    NotifierRestored,
    PoolTooSmall,
    PruneRefused,
    RescueStop,
    ServiceCancelled,
    ServiceFailed,
    ServiceRestored,
)
from ..models import Job, JobState
from ..oban import Oban

logger = logging.getLogger("oban_sqla")
jobs_logger = logging.getLogger("oban_sqla.jobs")

# SQLSTATEs: no prepared statement has that name, or one has it already.
_STATEMENT_IS_ELSEWHERE = ("26000", "42P05")


def attach() -> None:
    """Log the events of every instance; importing `oban_sqla` does so."""
    for name, listener in _LISTENERS.items():
        if not event.contains(Oban, name, listener):
            event.listen(Oban, name, listener)


def detach() -> None:
    """Log nothing."""
    for name, listener in _LISTENERS.items():
        if event.contains(Oban, name, listener):
            event.remove(Oban, name, listener)


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
        jobs_logger.info(
            "%s was cancelled by its worker after %.3f s",
            _of(stop.job),
            stop.duration,
            extra=_Facts(oban, stop),
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
            "%s failed, and is cancelled: %s", _of(job), what, extra=_Facts(oban, exception)
        )
    else:
        jobs_logger.info(
            "%s failed, and will be tried again: %s", _of(job), what, extra=_Facts(oban, exception)
        )


def _claim_stop(oban: Oban, stop: ClaimStop) -> None:
    if stop.discarded:
        logger.warning(
            "queue %s: discarded jobs that were available with no attempt left: %s",
            stop.queue,
            _ids(stop.discarded),
            extra=_Facts(oban, stop),
        )


def _ack_stop(oban: Oban, stop: AckStop) -> None:
    if stop.dropped:
        logger.warning(
            "queue %s: dropped the outcome of jobs that were deleted, or taken over, while they"
            " ran: %s",
            stop.queue,
            _ids(stop.dropped),
            extra=_Facts(oban, stop),
        )


def _give_back_stop(oban: Oban, stop: GiveBackStop) -> None:
    logger.warning(
        "queue %s: gave back claimed jobs: %s", stop.queue, _ids(stop.ids), extra=_Facts(oban, stop)
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
            "%s: cancelled jobs of nodes that died, as was asked for: %s",
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


def _notifier_lost(oban: Oban, lost: NotifierLost) -> None:
    logger.warning(
        "%s: notifications are lost, polling instead: %s",
        oban.name,
        lost.reason,
        extra=_Facts(oban, lost),
    )


def _notifier_restored(oban: Oban, restored: NotifierRestored) -> None:
    logger.info("%s: notifications are back", oban.name, extra=_Facts(oban, restored))


def _pool_too_small(oban: Oban, pool: PoolTooSmall) -> None:
    logger.warning(
        "%s: the engine's pool opens at most %d connections, and the jobs with a session and the"
        " node itself may use %d at once, so that jobs wait: make the engine with pool_size=%d, or"
        " lower the limits of the queues",
        oban.name,
        pool.size,
        pool.needed,
        pool.needed,
        extra=_Facts(oban, pool),
    )


def _job_unconnected(oban: Oban, unconnected: JobUnconnected) -> None:
    jobs_logger.warning(
        "%s got no connection for its session; it is tried again in %.0f s, and the attempt is not"
        " spent: %s",
        _of(unconnected.job),
        unconnected.delay,
        _shorten(unconnected.error),
        extra=_Facts(oban, unconnected),
    )


def _service_failed(oban: Oban, failed: ServiceFailed) -> None:
    logger.error(
        "%s: %s failed, trying again until it succeeds: %s%s",
        oban.name,
        failed.service,
        _shorten(failed.error),
        _remedy(failed.error),
        exc_info=(type(failed.error), failed.error, failed.error.__traceback__)
        if logger.isEnabledFor(logging.DEBUG)
        else None,
        extra=_Facts(oban, failed),
    )


def _service_restored(oban: Oban, restored: ServiceRestored) -> None:
    logger.info("%s: %s works again", oban.name, restored.service, extra=_Facts(oban, restored))


def _service_cancelled(oban: Oban, cancelled: ServiceCancelled) -> None:
    logger.warning(
        "%s: %s did not stop within %.1f s and was cancelled",
        oban.name,
        cancelled.service,
        cancelled.grace,
        extra=_Facts(oban, cancelled),
    )


class _Facts(Mapping[str, Any]):
    """What happened, and in which instance: told only when there is a record to take it."""

    def __init__(self, oban: Oban, data: Any) -> None:
        self._oban = oban
        self._data = data

    @cached_property
    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"event": _name(type(self._data).__name__)}
        facts |= {"instance": self._oban.name, "node": self._oban.node}
        for field in fields(self._data):
            value = getattr(self._data, field.name)
            if isinstance(value, Job):
                facts |= {"job_id": value.id, "worker": value.worker, "queue": value.queue}
                facts |= {"attempt": value.attempt, "max_attempts": value.max_attempts}
            elif isinstance(value, BaseException):
                facts["error"] = f"{type(value).__name__}: {_shorten(value)}"
            else:
                facts[field.name] = value
        return facts

    def __getitem__(self, name: str) -> Any:
        return self._facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


@cache
def _name(event: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", event).lower()


def _of(job: Job) -> str:
    return f"job {job.id} ({job.worker}, attempt {job.attempt} of {job.max_attempts})"


def _ids(ids: tuple[int, ...], most: int = 20) -> str:
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(map(str, ids[:most])) + more


def _remedy(error: BaseException) -> str:
    """What to do about an error that does not say it."""
    if getattr(getattr(error, "orig", error), "sqlstate", None) in _STATEMENT_IS_ELSEWHERE:
        return (
            "; behind a transaction pooler psycopg must not prepare statements: make the engine"
            ' with connect_args={"prepare_threshold": None}, or end the URL with'
            " ?prepare_threshold=none"
        )
    return ""


def _shorten(error: BaseException, longest: int = 500) -> str:
    try:
        text = str(error) or type(error).__name__
    except Exception:
        text = f"{type(error).__name__}, which can't be printed"
    text = hide_passwords(text)
    return text if len(text) <= longest else f"{text[:longest]}..."


_LISTENERS: dict[str, Callable[[Any, Any], None]] = {
    "job_stop": _job_stop,
    "job_exception": _job_exception,
    "claim_stop": _claim_stop,
    "ack_stop": _ack_stop,
    "give_back_stop": _give_back_stop,
    "elect_stop": _elect_stop,
    "rescue_stop": _rescue_stop,
    "prune_refused": _prune_refused,
    "notifier_lost": _notifier_lost,
    "notifier_restored": _notifier_restored,
    "job_unconnected": _job_unconnected,
    "pool_too_small": _pool_too_small,
    "service_failed": _service_failed,
    "service_restored": _service_restored,
    "service_cancelled": _service_cancelled,
}
