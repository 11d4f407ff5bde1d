"""Signals: orders to the queues and jobs of this node, heard at once, or read from the database."""

from collections.abc import Callable
from typing import Any, Protocol

from ..statements.mark import marked_among
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
    """Carries out, in their order, what it hears.

    What a signal that got lost ordered of a job is found by asking; a queue has to be told again.
    """

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
        self._idents = (None, "any", f"{instance}.{node}")
        self._poll_interval = poll_interval
        self._heard: list[dict[str, Any]] = []
        # What this instance sent, and carried out by itself: to do it again later would be wrong.
        self._echoes: list[dict[str, Any]] = []

    async def run_once(self) -> float:
        """Carry out what was heard, and ask which of the running jobs were cancelled."""
        while self._heard:
            await self.carry_out(self._heard.pop(0))
        if running := self._ordered.running():
            for (id,) in await self._database.fetch(marked_among(), {"running": running}):
                self._ordered.cancel_job(id)
        return self._poll_interval()

    def hear(self, news: dict[str, Any]) -> None:
        """Take a signal, as any Oban sends it, to be carried out."""
        if news in self._echoes:
            self._echoes.remove(news)
        elif news.get("ident") in self._idents:
            self._heard.append(news)
            self.wake()

    def expect_echo(self, news: dict[str, Any]) -> None:
        """Don't carry out a signal of our own when it comes back."""
        self._echoes.append(news)

    def expect_no_echo(self) -> None:
        """Signals that were sent may have got lost."""
        self._echoes.clear()

    async def carry_out(self, news: dict[str, Any]) -> None:
        """Do what a signal says; what makes no sense is left alone."""
        match news:
            case {"action": "pkill", "job_id": int(id)}:
                self._ordered.cancel_job(id)
            case {"action": "start", "queue": str(queue), "limit": int(limit)} if limit > 0:
                await self._ordered.start_queue(queue, limit, news.get("paused") is True)
            case {"action": "stop", "queue": str(queue)}:
                await self._ordered.stop_queue(queue)
            case {"action": "scale", "queue": str(queue), "limit": int(limit)} if limit > 0:
                self._ordered.scale_queue(queue, limit)
            case {"action": "pause", "queue": str(queue)}:
                self._ordered.pause_queue(queue)
            case {"action": "resume", "queue": str(queue)}:
                self._ordered.resume_queue(queue)
