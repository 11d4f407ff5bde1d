"""Awaited jobs: a node that has run one tells those who wait for it."""

import math
import time
from collections.abc import Iterable
from typing import Any

from ..statements.announce import DONE, about, announce
from .database import Database
from .service import Emit, Service

# Whoever waits says so again and again, and sooner than this.
FORGOTTEN_AFTER = 120.0
# Those who wait are kept from filling the memory.
MOST = 100_000


class Awaited(Service):
    """Knows which jobs somebody waits for, and announces what becomes of them.

    When nobody waits, nothing is sent. What gets lost here is found by those who wait, later.
    """

    name = "awaited"

    def __init__(self, database: Database, emit: Emit) -> None:
        super().__init__(emit)
        self._database = database
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
        ids = news.get("ids")
        if not isinstance(ids, list):
            return
        now = time.monotonic()
        if len(self._until) > MOST:
            self._until = {id: until for id, until in self._until.items() if until > now}
        if len(self._until) <= MOST:
            self._until.update({id: now + FORGOTTEN_AFTER for id in ids if isinstance(id, int)})

    def written(self, ids: Iterable[int]) -> None:
        """Take the ids of jobs whose outcome has been written."""
        if not self._until:
            return
        now = time.monotonic()
        if news := [id for id in ids if self._until.get(id, 0.0) > now]:
            self._news.update(news)
            self.wake()
