"""The leader: holds the lease of the node that runs the cluster-wide services."""

import math
from collections.abc import Callable
from typing import Any

from .database import Database
from .service import Emit, Service


class Leader(Service):
    """Takes the lease when it is free, and renews it while it holds it."""

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
        self._instance = instance
        self._node = node
        self._lease = lease
        self._on_change = on_change

    async def run_once(self) -> float:
        """Make a pass."""
        return math.inf

    @property
    def is_leader(self) -> bool:
        """Whether this node holds the lease; not for longer than the lease is good for."""
        return False

    def hear(self, news: dict[str, Any]) -> None:
        """A leader resigned: the lease is free."""
        self.wake()
