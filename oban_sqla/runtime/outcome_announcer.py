"""`OutcomeAnnouncer`: announces the outcomes of jobs for which other processes wait."""

import math
import time
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from ..statements.announce import DONE, about, announce, ids_in
from .database import Database
from .raw_statement import RawStatement
from .service import Emit, Service

# Waiters repeat the names of their jobs sooner. A job that is not repeated is no longer awaited.
FORGOTTEN_AFTER = 120.0
# Bounds the memory that other processes can fill by naming jobs.
MOST = 100_000


class OutcomeAnnouncer(Service):
    """Knows the jobs for which processes wait, and announces their outcomes.

    Without waiters, nothing is sent. If an announcement is lost, the waiter's next full query finds
    the outcome.
    """

    name = "outcome_announcer"

    def __init__(self, database: Database, emit: Emit) -> None:
        super().__init__(emit)
        self._database = database
        # The ids of awaited jobs, and until when they are awaited, in the order of these times.
        self._until: dict[int, float] = {}
        self._news: set[int] = set()

    @cached_property
    def _announce(self) -> RawStatement:
        return RawStatement(self._database, announce(prefix=self._database.prefix))

    async def run_once(self) -> float:
        """Announce the outcomes of awaited jobs."""
        if news := sorted(self._news):
            self._news.clear()
            await self._announce.fetch(about(DONE, news))
        return math.inf

    def hear(self, news: dict[str, Any]) -> None:
        """Hear that a process waits for jobs."""
        now = time.monotonic()
        self._forget(now)
        for id in ids_in(news):
            # Taken out first, so that the entry moves to the end.
            self._until.pop(id, None)
            if len(self._until) < MOST:
                self._until[id] = now + FORGOTTEN_AFTER

    def written(self, ids: Iterable[int]) -> None:
        """Note that the outcomes of these jobs have been committed."""
        if not self._until:
            return
        now = time.monotonic()
        if news := [id for id in ids if self._until.get(id, 0.0) > now]:
            self._news.update(news)
            self.wake()

    def _forget(self, now: float) -> None:
        while self._until:
            oldest = next(iter(self._until))
            if self._until[oldest] > now:
                return
            del self._until[oldest]
