"""Log a line a minute for each busy queue, so that a busy node does not look dead.

The lines go to the logger `oban_sqla.queues` at INFO. Turn them off by its level:
`logging.getLogger("oban_sqla.queues").setLevel("WARNING")`.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from weakref import WeakKeyDictionary

from ..events import JobDropped, JobException, JobStart, JobStop
from ..models import JobState
from ..oban import Oban
from .listeners import Listener

logger = logging.getLogger("oban_sqla.queues")

# Seconds between two lines of a queue.
INTERVAL = 60.0

_ENDS = {
    JobState.COMPLETED: "completed",
    JobState.RETRYABLE: "failed",
    JobState.DISCARDED: "discarded",
    JobState.CANCELLED: "cancelled",
    JobState.SCHEDULED: "snoozed",
}
_DROPPED = "given back"
_WAYS = (*_ENDS.values(), _DROPPED)


class _Activity:
    """The jobs of an instance's queues that ended since the last lines, or that run."""

    def __init__(self, oban: Oban) -> None:
        self._name = oban.name
        self._running: Counter[str] = Counter()
        self._ended: defaultdict[str, Counter[str]] = defaultdict(Counter)
        # The event loop that has a timer for `tell`.
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, queue: str) -> None:
        self._running[queue] += 1
        # An instance may run in several event loops in turn, and a closed loop calls no timer.
        if self._loop is None or self._loop.is_closed():
            self._wait()

    def end(self, queue: str, how: str) -> None:
        self._running[queue] -= 1
        self._ended[queue][how] += 1

    def tell(self) -> None:
        """Log a line for each queue that runs jobs, or whose jobs have ended."""
        self._loop = None
        busy = [queue for queue, count in self._running.items() if count > 0]
        for queue in sorted({*busy, *self._ended}):
            ended, running = self._ended[queue], self._running[queue]
            what = ", ".join(f"{ended[how]:,} {how}" for how in _WAYS if ended[how])
            logger.info(
                "%s: queue %s: %s in the last %.0f s; %d running",
                self._name,
                queue,
                what or "no job ended",
                INTERVAL,
                running,
                extra={"event": "queue_activity", "queue": queue, "running": running, **ended},
            )
        self._ended.clear()
        if busy:
            self._wait()

    def _wait(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(INTERVAL, self.tell)


_activities: WeakKeyDictionary[Oban, _Activity] = WeakKeyDictionary()


def _of(oban: Oban) -> _Activity:
    activity = _activities.get(oban)
    if activity is None:
        activity = _activities[oban] = _Activity(oban)
    return activity


def _job_start(oban: Oban, start: JobStart) -> None:
    _of(oban).start(start.job.queue)


def _job_end(oban: Oban, end: JobStop | JobException) -> None:
    _of(oban).end(end.job.queue, _ENDS.get(end.state, end.state.value))


def _job_dropped(oban: Oban, dropped: JobDropped) -> None:
    _of(oban).end(dropped.job.queue, _DROPPED)


LISTENERS: tuple[Listener, ...] = (
    (Oban, "job_start", _job_start),
    (Oban, "job_stop", _job_end),
    (Oban, "job_exception", _job_end),
    (Oban, "job_dropped", _job_dropped),
)
