"""Logging: listeners of the events, with all wording and levels.

The logger `oban_sqla` has incidents as warnings and errors, and the ends of incidents as INFO. An
outage of the database is one incident of a node; DEBUG has all failures during it. The logger
`oban_sqla.jobs` has a line for each job: ERROR if the job is discarded, INFO if it fails or is
cancelled, DEBUG if it completes. The logger `oban_sqla.queues` has a line a minute for each busy
queue. Records also have the data of the event as attributes, for formatters such as that of
`json_log`. `detach()` stops all logging.
"""

import logging
from collections.abc import Callable
from typing import Any

from ..events import (
    AckStop,
    ClaimStop,
    DashboardAction,
    ElectStop,
    GiveBackStop,
    MoveRefused,
    OutcomeDelayed,
    OutcomeRefused,
    PoolTooSmall,
    PruneRefused,
    RescueStop,
    ServiceCancelled,
    WorkersUnfinished,
)
from ..oban import Oban
from ..workers.unfinished import UNFINISHED
from . import activity, job_log, listeners, outage_log
from .facts import Facts, cause, ids_in_words, shorten
from .listeners import Listener

logger = logging.getLogger("oban_sqla")


def attach() -> None:
    """Log the events of all instances. Importing `oban_sqla` calls this."""
    listeners.attach(_ALL)


def detach() -> None:
    """Log nothing."""
    listeners.detach(_ALL)


def _claim_stop(oban: Oban, stop: ClaimStop) -> None:
    if stop.discarded:
        logger.warning(
            "queue %s: discarded jobs that were available but had no attempt left: %s",
            stop.queue,
            ids_in_words(stop.discarded),
            extra=Facts(oban, stop),
        )


def _ack_stop(oban: Oban, stop: AckStop) -> None:
    if stop.dropped:
        logger.warning(
            "queue %s: dropped the outcomes of jobs that were deleted, or claimed again, while they"
            " ran: %s",
            stop.queue,
            ids_in_words(stop.dropped),
            extra=Facts(oban, stop),
        )


def _outcome_refused(oban: Oban, refused: OutcomeRefused) -> None:
    logger.error(
        "queue %s: the attempt of job %s failed, since the database refused its outcome: %s",
        refused.queue,
        refused.id,
        shorten(refused.error),
        extra=Facts(oban, refused),
    )


def _outcome_delayed(oban: Oban, delayed: OutcomeDelayed) -> None:
    logger.warning(
        "queue %s: the outcome of job %s can't be written, trying again until it succeeds: %s",
        delayed.queue,
        delayed.id,
        delayed.reason,
        extra=Facts(oban, delayed),
    )


def _move_refused(oban: Oban, refused: MoveRefused) -> None:
    logger.warning(
        "%s: can't %s job %s, trying again until it succeeds: the database refuses it: %s",
        oban.name,
        refused.move,
        refused.id,
        cause(refused.error),
        extra=Facts(oban, refused),
    )


def _give_back_stop(oban: Oban, stop: GiveBackStop) -> None:
    begun = tuple(sorted({*stop.ids} - {*stop.held}))
    if begun:
        logger.warning(
            "queue %s: gave back claimed jobs: %s",
            stop.queue,
            ids_in_words(begun),
            extra=Facts(oban, stop),
        )
    else:
        logger.debug(
            "queue %s: gave back jobs that had not started: %s",
            stop.queue,
            ids_in_words(stop.held),
            extra=Facts(oban, stop),
        )


def _elect_stop(oban: Oban, stop: ElectStop) -> None:
    if stop.changed and stop.leader:
        logger.info("%s: node %s is the leader now", oban.name, oban.node, extra=Facts(oban, stop))
    elif stop.changed:
        logger.info(
            "%s: node %s is not the leader any more", oban.name, oban.node, extra=Facts(oban, stop)
        )


def _rescue_stop(oban: Oban, stop: RescueStop) -> None:
    if stop.rescued:
        logger.warning(
            "%s: rescued jobs of nodes that died: %s",
            oban.name,
            ids_in_words(stop.rescued),
            extra=Facts(oban, stop),
        )
    if stop.discarded:
        logger.warning(
            "%s: discarded jobs of nodes that died, which had no attempt left: %s",
            oban.name,
            ids_in_words(stop.discarded),
            extra=Facts(oban, stop),
        )
    if stop.cancelled:
        logger.info(
            "%s: cancelled jobs of nodes that died, on request: %s",
            oban.name,
            ids_in_words(stop.cancelled),
            extra=Facts(oban, stop),
        )


def _prune_refused(oban: Oban, refused: PruneRefused) -> None:
    logger.warning(
        "%s: can't delete %s jobs that are past their retention: %s: %s",
        oban.name,
        refused.state.value,
        ids_in_words(refused.ids),
        shorten(refused.error),
        extra=Facts(oban, refused),
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
        extra=Facts(oban, pool),
    )


def _workers_unfinished(oban: Oban, found: WorkersUnfinished) -> None:
    for worker in found.workers:
        logger.warning("%s: %s %s", oban.name, worker, UNFINISHED, extra=Facts(oban, found))


def _dashboard_action(oban: Oban, done: DashboardAction) -> None:
    logger.info(
        "%s: %s did %s in the dashboard: %s (%d)",
        oban.name,
        done.user or "somebody",
        done.action,
        done.target,
        done.count,
        extra=Facts(oban, done),
    )


def _service_cancelled(oban: Oban, cancelled: ServiceCancelled) -> None:
    logger.warning(
        "%s: %s did not stop within %.1f s and was cancelled",
        oban.name,
        cancelled.service,
        cancelled.grace,
        extra=Facts(oban, cancelled),
    )


_LISTENERS: dict[str, Callable[[Any, Any], None]] = {
    "claim_stop": _claim_stop,
    "ack_stop": _ack_stop,
    "outcome_refused": _outcome_refused,
    "outcome_delayed": _outcome_delayed,
    "move_refused": _move_refused,
    "give_back_stop": _give_back_stop,
    "elect_stop": _elect_stop,
    "rescue_stop": _rescue_stop,
    "prune_refused": _prune_refused,
    "pool_too_small": _pool_too_small,
    "workers_unfinished": _workers_unfinished,
    "dashboard_action": _dashboard_action,
    "service_cancelled": _service_cancelled,
}
_ALL: tuple[Listener, ...] = (
    *((Oban, name, listener) for name, listener in _LISTENERS.items()),
    *job_log.LISTENERS,
    *outage_log.LISTENERS,
    *activity.LISTENERS,
)
