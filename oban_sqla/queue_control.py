"""Controlling queues while they run, from any node: part of `Oban`."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from .config import Config
from .runtime.database import Database
from .runtime.supervisor import Supervisor
from .statements.announce import announce, order


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue as it runs on this node."""

    queue: str
    node: str
    limit: int
    paused: bool
    running: list[int]
    """The ids of its jobs that run."""
    uuid: UUID
    """The producer's, as in `oban_producers`."""

    __module__ = "oban_sqla"


class QueueControl:
    """Orders to queues, by Oban's signals: other nodes hear them through LISTEN.

    `node` is the name of one node; without it an order is for all. They are not kept: a node that
    starts later, or that does not LISTEN, does not know of them.
    """

    _config: Config
    _database: Database
    _supervisor: Supervisor | None

    async def pause_queue(self, queue: str, *, node: str | None = None) -> None:
        """Claim no more jobs of a queue, `"*"` for all; those that run go on."""
        await self._order({"action": "pause", "queue": queue}, node)

    async def resume_queue(self, queue: str, *, node: str | None = None) -> None:
        """Claim jobs of a queue again, `"*"` for all."""
        await self._order({"action": "resume", "queue": queue}, node)

    async def pause_all_queues(self, *, node: str | None = None) -> None:
        """Claim no more jobs at all."""
        await self.pause_queue("*", node=node)

    async def resume_all_queues(self, *, node: str | None = None) -> None:
        """Claim jobs of all queues again."""
        await self.resume_queue("*", node=node)

    async def scale_queue(self, *, queue: str, limit: int, node: str | None = None) -> None:
        """Run `limit` jobs of a queue at once on each node; surplus ones end first."""
        Config.check(queues={queue: limit})
        await self._order({"action": "scale", "queue": queue, "limit": limit}, node)

    async def start_queue(
        self, *, queue: str, limit: int, paused: bool = False, node: str | None = None
    ) -> None:
        """Start a queue on nodes that don't run it."""
        Config.check(queues={queue: {"limit": limit, "paused": paused}})
        action = {"action": "start", "queue": queue, "limit": limit, "paused": paused}
        await self._order(action, node)

    async def stop_queue(self, queue: str, *, node: str | None = None) -> None:
        """Stop a queue, as at the end of a process: its jobs have the grace period to end."""
        await self._order({"action": "stop", "queue": queue}, node)

    def check_queue(self, queue: str) -> QueueInfo | None:
        """A queue of this node; `None` if it does not run here."""
        return next((info for info in self.check_all_queues() if info.queue == queue), None)

    def check_all_queues(self) -> list[QueueInfo]:
        """The queues of this node."""
        if self._supervisor is None:
            return []
        return [
            QueueInfo(
                producer.queue,
                self._config.node,
                producer.limit,
                producer.paused,
                producer.running,
                producer.uuid,
            )
            for producer in self._supervisor.producers.values()
        ]

    async def _order(self, action: dict[str, Any], node: str | None) -> None:
        name = self._config.name
        signal = {**action, "ident": "any" if node is None else f"{name}.{node}"}
        running = self._supervisor if node in (None, self._config.node) else None
        if running is not None and running.notifier.listening:
            running.signals.expect_echo(signal)
        await self._database.fetch(announce(prefix=self._database.prefix), order(signal))
        # Not by its own notification, which may take its time, or not come.
        if running is not None:
            await running.signals.carry_out(signal)
