"""`Leader`: takes and renews the lease of the node that runs the cluster-wide services."""

import math
import random
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from ..events import ElectStop
from ..statements.elect import elect, resign
from .database import Database
from .service import Emit, Service
from .time_limits import SHORTEST_ANSWER, STOP_TIMEOUT, deadline

# The most seconds that a follower waits for the end of a lease, which its holder may give up early.
LONGEST_WAIT = 30.0
# The most time, as a part of the lease, that a follower waits longer, so that not all come at once.
JITTER = 0.05


class Leader(Service):
    """Takes the lease when it is free, and renews it after half of its time.

    The node counts the lease from before the request, the database from the request. So the node
    considers its lease lost before another node can take it, even if the node is blocked or paused.
    """

    name = "leader"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        instance: str,
        node: str,
        lease: float,
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(emit)
        self._database = database
        # With a random suffix, since containers may share a node's name, and a restart keeps it.
        self._lessee = {"instance": instance, "holder": f"{node}/{uuid4().hex[:12]}"}
        self._lease = lease
        self._on_change = on_change
        self._until = -math.inf
        # Whether the last event said that this node is the leader.
        self._leading = False
        # Whether the database may have a lease of this node.
        self._standing = False

    @property
    def is_leader(self) -> bool:
        """Whether this node holds the lease. Turns false when the lease ends."""
        return time.monotonic() < self._until

    @property
    def longest_retry(self) -> float:
        """Often enough to renew the lease before it is lost."""
        return min(super().longest_retry, self._lease / 4)

    async def run_once(self) -> float:
        """Take or renew the lease, and wait until it must be renewed, or may be free."""
        started = time.monotonic()
        self._standing = True
        try:
            async with deadline(max(self._lease / 4, SHORTEST_ANSWER)):
                (row,) = await self._database.fetch(elect(), {**self._lessee, "lease": self._lease})
        finally:
            # Also if the lease is taken again at once: services that saw it lost must be woken.
            if self._leading and not self.is_leader:
                self._lead(False, started)
        self._until = started + self._lease if row.leader else -math.inf
        self._lead(row.leader, started)
        if row.leader:
            return max(0.0, started + self._lease / 2 - time.monotonic())
        left = self._lease / 2 if row.expires_in is None else row.expires_in
        return max(0.0, min(left, LONGEST_WAIT)) + self._lease * random.uniform(0, JITTER)

    def hear(self, news: dict[str, Any]) -> None:
        """Hear that a leader resigned, so that the lease is free."""
        if news.get("name") == self._lessee["instance"]:
            self.wake()

    async def close(self) -> None:
        """Resign, so that another node can take over at once. A lease also ends by itself."""
        started = time.monotonic()
        self._until = -math.inf
        if not self._standing:
            return
        try:
            async with deadline(STOP_TIMEOUT):
                await self._database.fetch(resign(prefix=self._database.prefix), self._lessee)
            self._standing = False
        finally:
            if self._leading:
                self._lead(False, started)

    def _lead(self, leading: bool, started: float) -> None:
        changed = leading is not self._leading
        self._leading = leading
        self._emit("elect_stop", ElectStop(leading, changed, time.monotonic() - started))
        if changed:
            self._on_change()
