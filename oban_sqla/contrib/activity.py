"""Log a line a minute for each busy queue, so that a busy node does not look dead.

The lines go to the logger `oban_sqla.queues` at INFO. Turn them off by its level:
`logging.getLogger("oban_sqla.queues").setLevel("WARNING")`.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from weakref import WeakKeyDictionary, ref

from ..events import ClaimStop, JobDropped, JobException, JobStop
from ..models import JobState
from ..models.instrumentation import values_of
from ..oban import Oban
from .listeners import Listener

logger = logging.getLogger("oban_sqla.queues")

# Seconds between two lines of a queue.
INTERVAL = 60.0

_DROPPED = "given back"
_IN_WORDS = {
    JobState.COMPLETED: "completed",
    JobState.RETRYABLE: "failed",
    JobState.DISCARDED: "discarded",
    JobState.CANCELLED: "cancelled",
    JobState.SCHEDULED: "snoozed",
    _DROPPED: _DROPPED,
}


class _Activity:
    """The attempts of an instance that ended since the last lines, and the timer of new lines."""

    def __init__(self, oban: Oban) -> None:
        self._oban = ref(oban)
        # By queue, then by outcome.
        self.ended: defaultdict[str, Counter[str]] = defaultdict(Counter)
        # The event loop that has a timer for `tell`.
        self._loop: asyncio.AbstractEventLoop | None = None

    def tell_later(self) -> None:
        """Set the timer, unless it is set."""
        # An instance may run in several event loops in turn, and a closed loop calls no timer.
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.get_running_loop()
            self._loop.call_later(INTERVAL, self._tell)

    def _tell(self) -> None:
        """Log a line for each queue that runs jobs, or whose jobs have ended."""
        self._loop = None
        if (oban := self._oban()) is None:
            return
        running = _running(oban)
        for queue in sorted({*running, *self.ended}):
            count, ended = running.get(queue, 0), self.ended[queue]
            ends = {words: ended[how] for how, words in _IN_WORDS.items() if ended[how]}
            what = ", ".join(f"{number:,} {words}" for words, number in ends.items())
            logger.info(
                "%s: queue %s: %s in the last %.0f s; %d running",
                oban.name,
                queue,
                what or "no job ended",
                INTERVAL,
                count,
                extra={"event": "queue_activity", "queue": queue, "running": count, **ends},
            )
        self.ended.clear()
        if running:
            self.tell_later()


def _running(oban: Oban) -> dict[str, int]:
    """The number of jobs that each busy queue runs. A queue that only holds jobs is busy, too."""
    queues = oban.vitals.queues if oban.vitals else ()
    return {one.queue: one.executing for one in queues if one.executing or one.held}


_activities: WeakKeyDictionary[Oban, _Activity] = WeakKeyDictionary()


def _of(oban: Oban) -> _Activity:
    activity = _activities.get(oban)
    if activity is None:
        activity = _activities[oban] = _Activity(oban)
    return activity


def _claim_stop(oban: Oban, stop: ClaimStop) -> None:
    if stop.count:
        _of(oban).tell_later()


def _job_end(oban: Oban, end: JobStop | JobException) -> None:
    _of(oban).ended[values_of(end.job)["queue"]][end.state] += 1


def _job_dropped(oban: Oban, dropped: JobDropped) -> None:
    _of(oban).ended[values_of(dropped.job)["queue"]][_DROPPED] += 1


LISTENERS: tuple[Listener, ...] = (
    (Oban, "claim_stop", _claim_stop),
    (Oban, "job_stop", _job_end),
    (Oban, "job_exception", _job_end),
    (Oban, "job_dropped", _job_dropped),
)
