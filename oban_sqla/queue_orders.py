"""`QueueOrders`, a part of `Oban`: pause, resume, scale, start and stop queues, from any node."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final
from uuid import UUID

from .config import Config
from .errors import QueueNotFoundError
from .limiting import Rate
from .models import validation
from .runtime.database import Database
from .runtime.orders import KINDS
from .runtime.supervisor import Supervisor
from .statements.orders import EVERY, store_order


class Unchanged(Enum):
    """The default of an argument whose setting does not change."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue as it runs on this node."""

    queue: str
    node: str
    limit: int
    paused: bool
    running: list[int]
    """The ids of the running jobs of the queue."""
    started_at: datetime | None
    """When the queue was started on this node, by the database's clock."""
    meta: dict[str, Any]
    """The data about the queue that other nodes see in `oban_producers.meta`."""
    uuid: UUID
    """The uuid of the queue's producer, as in `oban_producers`."""

    __module__ = "oban_sqla"


class QueueOrders:
    """Give orders to queues, from any node, or from an instance without queues.

    `node` is the name of one node. Without `node`, the order is for all nodes of the instance.
    Running nodes hear the order at once, by NOTIFY, or read it at their next pass. A node of
    another Oban follows it only if it hears the NOTIFY. A node that starts pauses the queues that
    are paused by an order, and takes the `global_limit` and the `rate_limit` of the last order; all
    other settings come from its configuration.

    `ValueError` or `TypeError` for an invalid name; nothing is sent then.
    """

    _config: Config
    _database: Database
    _supervisor: Supervisor | None

    async def pause_queue(self, queue: str, *, node: str | None = None) -> None:
        """Pause a queue, or all with `"*"`: claim no more jobs. Running jobs go on."""
        await self._order({"action": "pause", "queue": queue}, node)

    async def resume_queue(self, queue: str, *, node: str | None = None) -> None:
        """Resume a paused queue, or all with `"*"`."""
        await self._order({"action": "resume", "queue": queue}, node)

    async def scale_queue(
        self,
        *,
        queue: str,
        limit: int | None = None,
        global_limit: int | Mapping[str, Any] | Unchanged | None = UNCHANGED,
        rate_limit: Rate | Mapping[str, Any] | Unchanged | None = UNCHANGED,
        node: str | None = None,
    ) -> None:
        """Change how many jobs of a queue run at once, or start in a period. Running jobs go on.

        limit: on each node, until it restarts.
        global_limit: on all nodes together, in place of the configured one, also after a restart;
            `None` for any number. With `{"allowed": 2, "partition": {"fields": ["args"], "keys":
            ["account_id"]}}`, for each key.
        rate_limit: how many start in a period on all nodes together; likewise.
        """
        scale = {"action": "scale", "queue": queue}
        changes: dict[str, Any] = {} if limit is None else {"limit": limit}
        for kind, given in (("global_limit", global_limit), ("rate_limit", rate_limit)):
            if given is not UNCHANGED:
                if node is not None:
                    raise ValueError(f"{kind} is for all nodes together: leave node out")
                changes[kind] = given
        if not changes:
            raise TypeError("scale_queue() needs a limit, a global_limit or a rate_limit")
        (checked,) = Config.check(queues={queue: {"limit": 1, **changes}}).queues
        if isinstance(changes.get("global_limit"), Mapping):
            changes["global_limit"] = checked.global_limit and checked.global_limit.words
        if checked.rate_limit is not None:
            changes["rate_limit"] = checked.rate_limit.words
        for name, value in changes.items():
            await self._order({**scale, name: value}, node, kind=name)

    async def start_queue(
        self, *, queue: str, limit: int, paused: bool = False, node: str | None = None
    ) -> None:
        """Start a queue on nodes that don't run it."""
        Config.check(queues={queue: {"limit": limit, "paused": paused}})
        action = {"action": "start", "queue": queue, "limit": limit, "paused": paused}
        await self._order(action, node)

    async def stop_queue(self, queue: str, *, node: str | None = None) -> None:
        """Stop a queue. Its running jobs have the grace period to end."""
        await self._order({"action": "stop", "queue": queue}, node)

    def check_queue(self, queue: str) -> QueueInfo | None:
        """A queue of this node; `None` if this node does not run it."""
        return next((info for info in self.check_all_queues() if info.queue == queue), None)

    def check_one_queue(self, queue: str) -> QueueInfo:
        """A queue of this node; `QueueNotFoundError` if this node does not run it."""
        info = self.check_queue(queue)
        if info is None:
            names = ", ".join(one.queue for one in self.check_all_queues()) or "none"
            raise QueueNotFoundError(
                f"queue {queue!r} does not run on node {self._config.node!r}, which runs {names};"
                " check_queue() returns None instead"
            )
        return info

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
                self._supervisor.heartbeat.started_at(producer.uuid),
                producer.meta,
                producer.uuid,
            )
            for producer in self._supervisor.producers.values()
        ]

    async def _order(
        self, action: dict[str, Any], node: str | None, *, kind: str | None = None
    ) -> None:
        queue, verb = validation.queue_name(action["queue"]), action["action"]
        if queue == EVERY and verb not in ("pause", "resume"):
            raise ValueError(
                f"{EVERY!r} for all queues is only possible for pause and resume; name the queue to"
                f" {verb}"
            )
        Config.check(node=node)
        name = self._config.name
        ident = "any" if node is None else f"{name}.{node}"
        statement = store_order(
            {**action, "ident": ident},
            name=name,
            node=EVERY if node is None else node,
            kind=kind or KINDS[action["action"]],
            prefix=self._database.prefix,
        )
        await self._database.fetch(statement)
        if (
            self._supervisor is not None
            and node in (None, self._config.node)
            and self._database.home.is_running()
        ):
            # Followed at once: the node's own notification may come late, or not at all.
            await self._supervisor.orders.catch_up()
