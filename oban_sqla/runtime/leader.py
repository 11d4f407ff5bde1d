"""The leader: holds the lease of the node that runs the cluster-wide services."""

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
from .time_limits import FAREWELL, SHORTEST_ANSWER, deadline

# How long a follower waits at the most for a lease to run out that somebody else may give up.
LONGEST_WAIT = 30.0
# By how much of its lease followers come later than it runs out, so that they don't come at once.
JITTER = 0.05


class Leader(Service):
    """Takes the lease when it is free, and renews it at half its life while it holds it.

    A node counts a lease from before it asked for it, the database from when it was asked: so the
    node takes it for lost before another one can have it, whether it fails to renew it, or is
    blocked, or stands still altogether.
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
        # Not the node's name alone: containers share those, and a restart keeps it.
        self._lessee = {"instance": instance, "holder": f"{node}/{uuid4().hex[:12]}"}
        self._lease = lease
        self._on_change = on_change
        self._until = -math.inf
        # What was last reported.
        self._leading = False
        # Whether there may be a lease of ours.
        self._standing = False

    @property
    def is_leader(self) -> bool:
        """Whether this node holds the lease; not for longer than the lease is good for."""
        return time.monotonic() < self._until

    @property
    def longest_retry(self) -> float:
        """Often enough to renew the lease before it is lost."""
        return min(super().longest_retry, self._lease / 4)

    async def run_once(self) -> float:
        """Stand for election, and wait until the lease has to be renewed, or is free perhaps."""
        started = time.monotonic()
        self._standing = True
        try:
            async with deadline(max(self._lease / 4, SHORTEST_ANSWER)):
                (row,) = await self._database.fetch(elect(), {**self._lessee, "lease": self._lease})
        finally:
            # Also when it is held again at once: those who looked meanwhile have to be woken.
            if self._leading and not self.is_leader:
                self._lead(False, started)
        self._until = started + self._lease if row.leader else -math.inf
        self._lead(row.leader, started)
        if row.leader:
            return max(0.0, started + self._lease / 2 - time.monotonic())
        left = self._lease / 2 if row.expires_in is None else row.expires_in
        return max(0.0, min(left, LONGEST_WAIT)) + self._lease * random.uniform(0, JITTER)

    def hear(self, news: dict[str, Any]) -> None:
        """A leader resigned: the lease is free."""
        if news.get("name") == self._lessee["instance"]:
            self.wake()

    async def close(self) -> None:
        """Resign, so that the next leader takes over at once; the lease runs out by itself."""
        started = time.monotonic()
        self._until = -math.inf
        if not self._standing:
            return
        try:
            async with deadline(FAREWELL):
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
