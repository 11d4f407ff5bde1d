"""The pruner: deletes finished jobs that are past their retention."""

import math
from collections.abc import Callable

from ..config import Retention
from .database import Database
from .service import Emit, Service


class Pruner(Service):
    """Deletes in small batches until nothing is left to delete, on the leader."""

    name = "pruner"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        is_leader: Callable[[], bool],
        retention: Retention,
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._is_leader = is_leader
        self._retention = retention

    async def run_once(self) -> float:
        """Make a pass."""
        return math.inf
