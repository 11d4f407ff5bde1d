"""`WayToClaim`: how a producer claims jobs, and the seam at which limits replace the plain way."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from ..config.queues import Queue
from ..statements.claim import claim_of_queue
from ..statements.claimed import Claimed
from .claim_position import ClaimPosition
from .database import Database
from .raw_statement import RawStatement


class Claim(NamedTuple):
    """The result of a claim."""

    jobs: Sequence[Claimed]
    full: bool
    """Whether the claim returned as many jobs as requested."""
    exhausted: bool
    """Whether the claim proves that no other job may start now."""
    duration: float
    unwanted: Sequence[int] = ()
    """The ids of claimed jobs that must not start, so they go back."""
    again_in: float = math.inf
    """Seconds until a job may start that a limit delays now."""


class WayToClaim(Protocol):
    """Claims the jobs of one queue."""

    @property
    def may_claim_ahead(self) -> bool:
        """Whether jobs may be claimed before they can start."""
        ...

    @property
    def meta(self) -> Mapping[str, Any]:
        """Data for other nodes, stored in the row of the producer."""
        ...

    def news(self) -> None:
        """Note that there may be new jobs at any position of the queue."""
        ...

    async def claim(self, demand: int, producer: str) -> Claim:
        """Claim up to `demand` jobs for the producer with this uuid."""
        ...

    def frees(self, *, here: bool) -> bool:
        """Whether jobs that ended, of this queue `here` or of others, may let another job start."""
        ...

    async def gave_back(self, ids: Sequence[int]) -> None:
        """Note that claimed jobs did not start, and are available again."""
        ...

    def hold(self, job: Claimed, seconds: float) -> None:
        """For `seconds`, start no job of the same rate or key on any node."""
        ...

    async def write_holds(self) -> None:
        """Write the new holds, so that other nodes see them."""
        ...

    @property
    def tell_in(self) -> float:
        """Seconds until `tell` has something to tell."""
        ...

    async def tell(self) -> None:
        """Tell other nodes of slots that this node does not use, if it is time."""
        ...

    def change_limits(self, changes: Mapping[str, Any]) -> bool:
        """Change limits of the running queue. Returns whether any limit has changed."""
        ...


WaysToClaim = Callable[[Database, Queue, str, Callable[[], float]], WayToClaim]
"""Makes the `WayToClaim` of a queue on a node. The last argument is its poll interval."""


CALM = 5
"""After this many quick claims that were not full, the server may keep the plan of the claim."""
QUICK = 0.01
"""The most seconds of a quick claim."""


class PlainClaim:
    """Claims the first available jobs of a queue, in one statement.

    Planning the statement takes the server longer than claiming one job. So in a calm queue the
    server keeps a plan. If a claim is full or slow, the kept plan may be wrong by now, and is not
    used.
    """

    may_claim_ahead = True
    meta: Mapping[str, Any] = {}
    tell_in = math.inf

    def __init__(
        self, database: Database, queue: Queue, node: str, poll_interval: Callable[[], float]
    ) -> None:
        self._database = database
        self._planned = RawStatement(database, claim_of_queue())
        self._calm = 0
        self._params = {"queue_name": queue.name, "node_name": node}
        self._position = ClaimPosition()

    @cached_property
    def _kept(self) -> RawStatement:
        return RawStatement(self._database, claim_of_queue(keep_plan=True))

    def news(self) -> None:
        self._position.news()

    async def claim(self, demand: int, producer: str) -> Claim:
        started = time.monotonic()
        own = {"limit": demand, "producer": producer}
        statement = self._kept if self._calm >= CALM else self._planned
        rows = await statement.fetch({**self._params, **own, **self._position.next()})
        jobs, duration = [Claimed(row) for row in rows], time.monotonic() - started
        full = len(jobs) == demand
        self._calm = 0 if full or duration > QUICK else self._calm + 1
        self._position.claimed(jobs, full=full, duration=duration)
        # A claim behind the last claim proves nothing about jobs before that position.
        return Claim(jobs, full, not full and self._position.at_front, duration)

    def frees(self, *, here: bool) -> bool:
        return False

    async def gave_back(self, ids: Sequence[int]) -> None:
        pass

    def hold(self, job: Claimed, seconds: float) -> None:
        pass

    async def write_holds(self) -> None:
        pass

    async def tell(self) -> None:
        pass

    def change_limits(self, changes: Mapping[str, Any]) -> bool:
        return False


_ways: list[WaysToClaim] = [PlainClaim]


def register(way: WaysToClaim) -> None:
    """Have the queues that start from now on claim in this way."""
    if way not in _ways:
        _ways.append(way)


def way_to_claim(
    database: Database, queue: Queue, node: str, poll_interval: Callable[[], float]
) -> WayToClaim:
    """The way in which a queue claims jobs: the one that was registered last."""
    return _ways[-1](database, queue, node, poll_interval)
