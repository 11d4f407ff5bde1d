"""The lifeline: rescues the jobs of nodes that died."""

import math
from collections.abc import Callable

from .database import Database
from .service import Emit, Service


class Lifeline(Service):
    """Gives orphans back to their queues, on the leader."""

    name = "lifeline"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        is_leader: Callable[[], bool],
        steady: Callable[[], float],
        heartbeat_expiry: float,
        rescue_after: float,
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._is_leader = is_leader
        self._steady = steady
        self._heartbeat_expiry = heartbeat_expiry
        self._rescue_after = rescue_after

    async def run_once(self) -> float:
        """Make a pass."""
        return math.inf
