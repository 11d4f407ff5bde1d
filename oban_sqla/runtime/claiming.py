"""The way to claim of a producer: the seam at which limits take the place of the plain claim."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ..config.queues import Queue
from ..statements.claim import claim_of_queue
from ..statements.claimed import Claimed
from .claim_position import ClaimPosition
from .database import Database
from .raw_statement import RawStatement


class Claim(NamedTuple):
    """What one claim brought."""

    jobs: Sequence[Claimed]
    full: bool
    """Whether it brought all that it was asked for."""
    exhausted: bool
    """Whether it proves that no other job may start now."""
    duration: float
    unwanted: Sequence[int] = ()
    """The ids of claimed jobs that must not start: they go back."""
    look_in: float = math.inf
    """Seconds until a job may start that may not start now."""


class WayToClaim(Protocol):
    """How the jobs of one queue are claimed."""

    @property
    def ahead(self) -> bool:
        """Whether jobs may be claimed before they can start."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the other nodes are told of it, in the row of its producer."""

    def news(self) -> None:
        """There may be new jobs, anywhere in the queue."""

    async def claim(self, demand: int, producer: str) -> Claim:
        """Claim up to `demand` jobs for a producer, by its uuid."""

    def frees(self) -> bool:
        """Whether outcomes that were written may let another job start."""

    async def gave_back(self, ids: Sequence[int]) -> None:
        """Take note of claimed jobs that did not start, and are available again."""

    def limit(self, changes: Mapping[str, Any]) -> bool:
        """Change limits of the queue while it runs; whether any has changed."""


WaysToClaim = Callable[[Database, Queue, str, Callable[[], float]], WayToClaim]
"""Makes the way to claim of a queue on a node, which looks again at least every so many seconds."""


class PlainClaim:
    """Claims the first available jobs of a queue, in one statement."""

    ahead = True
    meta: Mapping[str, Any] = {}

    def __init__(
        self, database: Database, queue: Queue, node: str, poll_interval: Callable[[], float]
    ) -> None:
        self._statement = RawStatement(database, claim_of_queue())
        self._params = {"queue_name": queue.name, "node_name": node}
        self._position = ClaimPosition()

    def news(self) -> None:
        self._position.news()

    async def claim(self, demand: int, producer: str) -> Claim:
        started = time.monotonic()
        own = {"limit": demand, "producer": producer}
        rows = await self._statement.fetch({**self._params, **own, **self._position.next()})
        jobs, duration = [Claimed(row) for row in rows], time.monotonic() - started
        full = len(jobs) == demand
        self._position.claimed(jobs, full=full, duration=duration)
        # A claim behind the last one proves nothing about the jobs before it.
        return Claim(jobs, full, not full and self._position.at_front, duration)

    def frees(self) -> bool:
        return False

    async def gave_back(self, ids: Sequence[int]) -> None:
        pass

    def limit(self, changes: Mapping[str, Any]) -> bool:
        return False
