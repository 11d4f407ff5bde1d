"""The way to claim of a queue that has limits over all nodes, or may get them."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..config.queues import Queue
from ..config.values import LARGEST_COUNT
from ..runtime.claim_position import ClaimPosition
from ..runtime.claiming import Claim, PlainClaim
from ..runtime.database import Database
from ..runtime.raw_statement import RawStatement
from ..statements.claimed import Claimed
from . import rows as rows  # the tables, for the metadata
from .lock import lock_queue
from .queue_claim import claim_within_global_limit

GLOBAL_LIMIT = "global_limit"


class LimitedClaim:
    """Claims plainly while the queue has no limit, and otherwise counts under a lock."""

    def __init__(
        self, database: Database, queue: Queue, node: str, poll_interval: Callable[[], float]
    ) -> None:
        self._plain = PlainClaim(database, queue, node, poll_interval)
        self._database = database
        self._params = {"queue_name": queue.name, "node_name": node}
        self._poll_interval = poll_interval
        self._global_limit = queue.global_limit
        self._position = ClaimPosition()
        self._statement = RawStatement(database, claim_within_global_limit(), behind=lock_queue())
        # Whether the last claim left jobs that a limit may have kept waiting.
        self._blocked = False

    @property
    def ahead(self) -> bool:
        return self._global_limit is None

    @property
    def meta(self) -> Mapping[str, Any]:
        if self._global_limit is None:
            return {}
        return {GLOBAL_LIMIT: {"allowed": self._global_limit}}

    def news(self) -> None:
        self._plain.news()
        self._position.news()

    def frees(self) -> bool:
        return self._blocked

    def limit(self, changes: Mapping[str, Any]) -> bool:
        before = self._global_limit
        if GLOBAL_LIMIT in changes:
            self._global_limit = _count(changes[GLOBAL_LIMIT], before)
        return self._global_limit != before

    async def claim(self, demand: int, producer: str) -> Claim:
        if self._global_limit is None:
            self._blocked = False
            return await self._plain.claim(demand, producer)
        started = time.monotonic()
        params = {
            **self._params,
            "home": self._database.prefix,
            "limit": demand,
            "producer": producer,
            GLOBAL_LIMIT: self._global_limit,
            **self._position.next(),
        }
        rows = await self._statement.fetch(params)
        duration = time.monotonic() - started
        room = rows[0][-1]
        jobs = [Claimed(row[:-1]) for row in rows if row[0] is not None]
        full = len(jobs) == min(demand, room)
        self._blocked = full and room <= demand
        self._position.claimed(jobs, full=full, duration=duration)
        exhausted = self._blocked or (not full and self._position.at_front)
        look_in = self._poll_interval() if self._blocked else math.inf
        return Claim(jobs, len(jobs) == demand, exhausted, duration, look_in=look_in)

    async def gave_back(self, ids: Sequence[int]) -> None:
        pass


def _count(given: Any, before: int | None) -> int | None:
    """A limit as an order names it; what makes no sense changes nothing."""
    allowed = given.get("allowed") if isinstance(given, Mapping) else given
    if allowed is None:
        return None
    is_count = isinstance(allowed, int) and not isinstance(allowed, bool)
    return allowed if is_count and 1 <= allowed <= LARGEST_COUNT else before
