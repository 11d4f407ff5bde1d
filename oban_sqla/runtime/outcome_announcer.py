"""The outcome announcer: names the jobs whose outcome was committed to those who wait for them."""

import math
import time
from collections.abc import Iterable
from typing import Any

from ..statements.announce import DONE, about, announce, ids_in
from .database import Database
from .service import Emit, Service

# Waiters name the jobs again before this, so a job that nobody waits for any more is forgotten.
FORGOTTEN_AFTER = 120.0
# Bounds the memory that other processes can fill by naming jobs.
MOST = 100_000


class OutcomeAnnouncer(Service):
    """Knows for which jobs somebody waits, and announces their outcomes.

    It sends nothing while nobody waits. A waiter finds a lost announcement by its slow look.
    """

    name = "outcome_announcer"

    def __init__(self, database: Database, emit: Emit) -> None:
        super().__init__(emit)
        self._database = database
        # By id, until when: the times grow from the first entry to the last.
        self._until: dict[int, float] = {}
        self._news: set[int] = set()

    async def run_once(self) -> float:
        """Announce the outcomes that somebody waits for."""
        if news := sorted(self._news):
            self._news.clear()
            await self._database.fetch(announce(prefix=self._database.prefix), about(DONE, news))
        return math.inf

    def hear(self, news: dict[str, Any]) -> None:
        """Take the news that somebody waits for jobs."""
        now = time.monotonic()
        self._forget(now)
        for id in ids_in(news):
            # Taken out first, so that the entry moves to the end.
            self._until.pop(id, None)
            if len(self._until) < MOST:
                self._until[id] = now + FORGOTTEN_AFTER

    def written(self, ids: Iterable[int]) -> None:
        """Take the ids of jobs whose outcome has been committed."""
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
