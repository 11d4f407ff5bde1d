"""The stager: promotes scheduled jobs when they are due, not at the next poll."""

import time
from collections.abc import Callable, Collection
from datetime import datetime

from ..events import StageStop
from ..statements.stage import stage
from .database import Database
from .service import Emit, Service


class Stager(Service):
    """Sleeps until the next job is due, as far as it knows, or until it is told of an earlier one.

    Every node has one, for the jobs of all queues: those that one has locked, the others pass by.
    """

    name = "stager"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        wake_queues: Callable[[Collection[str]], None],
        poll_interval: Callable[[], float],
        batch: int,
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._wake_queues = wake_queues
        self._poll_interval = poll_interval
        self._batch = batch
        self._clock_ahead: float | None = None

    async def run_once(self) -> float:
        """Promote a batch of due jobs, wake their queues, and wait for the next one."""
        started = time.monotonic()
        statement = stage(prefix=self._database.prefix)
        (row,) = await self._database.fetch(statement, {"batch": self._batch})
        # Both clocks as of the statement's start, which makes us early rather than late.
        self._clock_ahead = row.now - started
        queues = tuple(row.queues or ())
        self._wake_queues(queues)
        self._emit("stage_stop", StageStop(row.staged, queues, time.monotonic() - started))
        if row.staged == self._batch:
            return 0.0
        waiting: float = self._poll_interval()
        return waiting if row.next_in is None else min(waiting, self._until(row.now + row.next_in))

    def expect(self, due_at: datetime) -> None:
        """Learn of a job that is due at an instant, by the database's clock."""
        if self._clock_ahead is None:
            self.wake()
            return
        self.wake_in(self._until(due_at.timestamp()))

    def _until(self, due_at: float) -> float:
        assert self._clock_ahead is not None
        return max(0.0, due_at - self._clock_ahead - time.monotonic())
