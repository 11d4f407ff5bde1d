"""`LeftBehind`: threads and tasks that still run after their jobs have ended."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from ..events import JobLeftBehind
from ..models import Job
from .service import Emit

REPORTED_AFTER = 5.0
"""Seconds until a thread or task is reported. It may end by itself before that."""


class LeftBehind:
    """Counts, by queue, the threads and tasks that run on after a timeout or a cancellation.

    A thread can't be ended from outside, and a task may ignore its cancellation. Each takes a slot
    of its queue until it ends by itself, so that they do not pile up.
    """

    def __init__(self, emit: Emit, freed: Callable[[str], None] = lambda queue: None) -> None:
        """`freed` is called with the queue of each thread or task that ends."""
        self._emit = emit
        self._freed = freed
        self._going_on: dict[asyncio.Future[Any], Job] = {}
        self._counts: Counter[str] = Counter()

    def add(self, job: Job, end: asyncio.Future[Any]) -> None:
        """Count a thread or task of a job until its `end` is done."""
        self._going_on[end] = job
        self._counts[job.queue] += 1
        end.add_done_callback(self._ended)
        asyncio.get_running_loop().call_later(REPORTED_AFTER, self._report, end)

    def count(self, queue: str) -> int:
        """The number of slots that threads and tasks take in a queue."""
        return self._counts[queue] if self._counts else 0

    def ids(self, queue: str) -> list[int]:
        """The ids of the jobs of these threads and tasks in a queue."""
        return [job.id for job in self._going_on.values() if job.queue == queue]

    def _report(self, end: asyncio.Future[Any]) -> None:
        if (job := self._going_on.get(end)) is not None:
            self._emit("job_left_behind", JobLeftBehind(job, self._counts[job.queue]))

    def _ended(self, end: asyncio.Future[Any]) -> None:
        queue = self._going_on.pop(end).queue
        self._counts[queue] -= 1
        self._freed(queue)
