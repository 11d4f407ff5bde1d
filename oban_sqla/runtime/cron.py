"""Cron: enqueues a job for each tick of the entries that workers declared."""

import math
from collections.abc import Callable, Collection

from .database import Database
from .service import Emit, Service


class Cron(Service):
    """Enqueues the jobs of due ticks, on the leader."""

    name = "cron"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        is_leader: Callable[[], bool],
        instance: str,
        timezone: str,
        wake_queues: Callable[[Collection[str]], None],
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._is_leader = is_leader
        self._instance = instance
        self._timezone = timezone
        self._wake_queues = wake_queues

    async def run_once(self) -> float:
        """Make a pass."""
        return math.inf
