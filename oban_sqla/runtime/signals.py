"""Signals: orders to the queues and jobs of this node, heard at once, or read from the database."""

import math
from collections.abc import Callable
from typing import Any, Protocol

from .database import Database
from .service import Emit, Service


class Ordered(Protocol):
    """What the signals are about: the queues and jobs of this node."""

    async def start_queue(self, queue: str, limit: int, paused: bool = False) -> None: ...

    async def stop_queue(self, queue: str) -> None: ...

    def pause_queue(self, queue: str) -> None: ...

    def resume_queue(self, queue: str) -> None: ...

    def scale_queue(self, queue: str, limit: int) -> None: ...

    def cancel_job(self, id: int) -> None: ...

    def running(self) -> list[int]: ...


class Signals(Service):
    """Carries out what is ordered of this node."""

    name = "signals"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        ordered: Ordered,
        instance: str,
        node: str,
        poll_interval: Callable[[], float],
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._ordered = ordered
        self._instance = instance
        self._node = node
        self._poll_interval = poll_interval

    async def run_once(self) -> float:
        """Make a pass."""
        return math.inf

    def hear(self, news: dict[str, Any]) -> None:
        """Carry out a signal."""
