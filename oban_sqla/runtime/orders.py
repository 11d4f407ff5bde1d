"""`Orders`: carries out orders to the queues and jobs of this node."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import product
from typing import Any, Protocol

from ..config.values import LARGEST_COUNT
from ..statements.cancel_mark import marked_among
from ..statements.orders import EVERY, orders_to
from .database import Database
from .service import Emit, Service

KINDS = {
    "pause": "paused",
    "resume": "paused",
    "scale": "limit",
    "start": "running",
    "stop": "running",
}
"""The kind of an order, by its action. The newest order of a kind replaces older ones."""

LIMITS = ("global_limit", "rate_limit")
"""The kinds of orders that scale a queue over all nodes. They still apply after a restart."""


class OrderTaker(Protocol):
    """The object that carries out orders: the queues of this node."""

    async def start_queue(self, queue: str, limit: int, paused: bool = False) -> None: ...

    async def stop_queue(self, queue: str) -> None: ...

    def pause_queue(self, queue: str) -> None: ...

    def resume_queue(self, queue: str) -> None: ...

    def scale_queue(self, queue: str, limit: int) -> None: ...

    def limit_queue(self, queue: str, changes: Mapping[str, Any]) -> None:
        """Change the limits of a queue over all nodes. Invalid values are ignored."""

    def cancel_job(self, id: int) -> None: ...

    def running(self) -> list[int]: ...

    async def report(self) -> None:
        """Write the state of the queues now, so that other nodes see it."""


class Orders(Service):
    """Carries out the orders to this node, each once and in order.

    Orders are heard by NOTIFY. Lost orders, and orders from before the start of the node, are read
    from the database.
    """

    name = "orders"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        taker: OrderTaker,
        instance: str,
        node: str,
        poll_interval: Callable[[], float],
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._taker = taker
        self._name = instance
        self._node = node
        self._idents = (None, "any", f"{instance}.{node}")
        self._poll_interval = poll_interval
        # `None` means that an order of ours was announced, and must be read from the database.
        self._heard: list[dict[str, Any] | None] = []
        # The order that was announced last.
        self._announced: Any = None
        # The times of the orders that were carried out, by node, queue and kind.
        self._done: dict[tuple[str, str, str], datetime] = {}
        self._turn = asyncio.Lock()

    async def restore(self) -> None:
        """Apply pauses and limits over all nodes that were ordered before this node started.

        All other orders only apply to the nodes that ran at that time.
        """
        async with self._turn:
            paused = limited = False
            for row in await self._kept():
                if row.setting == KINDS["pause"]:
                    paused = paused or _is_pause(row.value)
                    # Skip a resume without an earlier pause: a queue that is configured as paused
                    # stays paused.
                    if paused:
                        await self._carry_out(row.value)
                elif row.setting in LIMITS:
                    limited = True
                    await self._carry_out(row.value)
                self._done[row.node, row.queue, row.setting] = row.changed_at
            if paused or limited:
                await self._taker.report()

    async def run_once(self) -> float:
        """Carry out heard and missed orders, and find running jobs that were cancelled."""
        while self._heard:
            news = self._heard.pop(0)
            if news is not None:
                await self._carry_out(news)
            elif self._heard:
                # Read the stored order before carrying out the orders that were heard after it.
                await self.catch_up()
        await self.catch_up()
        if running := self._taker.running():
            for (id,) in await self._database.fetch(marked_among(), {"running": running}):
                self._taker.cancel_job(id)
        return self._poll_interval()

    def hear_order(self, news: dict[str, Any]) -> None:
        """Hear that an order is stored in the database. The order itself is notified next."""
        self._announced = news.get("signal")
        if news.get("name") == self._name:
            self._heard.append(None)
            self.wake()

    def hear(self, news: dict[str, Any]) -> None:
        """Hear an order in Oban's form, and carry it out."""
        announced, self._announced = self._announced, None
        if news == announced or news.get("ident") not in self._idents:
            return
        match news:
            case {"action": "pkill", "job_id": int(id)}:
                self._taker.cancel_job(id)
            case _:
                self._heard.append(news)
                self.wake()

    def lose_track(self) -> None:
        """Forget the announced order, whose NOTIFY may not come."""
        self._announced = None

    async def catch_up(self) -> None:
        """Carry out the stored orders that were not carried out yet."""
        async with self._turn:
            new = [row for row in await self._kept() if not self._is_done(row)]
            for row in new:
                await self._carry_out(row.value)
                self._done[row.node, row.queue, row.setting] = row.changed_at
            if new:
                await self._taker.report()

    def _is_done(self, row: Any) -> bool:
        covering = product((row.node, EVERY), (row.queue, EVERY), (row.setting,))
        return any(row.changed_at <= self._done[key] for key in covering if key in self._done)

    async def _carry_out(self, news: Any) -> None:
        """Carry out an order. Invalid orders are ignored."""
        match news:
            case {"action": "start", "queue": str(queue), "limit": int(limit)} if _fits(limit):
                await self._taker.start_queue(queue, limit, news.get("paused") is True)
            case {"action": "stop", "queue": str(queue)}:
                await self._taker.stop_queue(queue)
            case {"action": "scale", "queue": str(queue)}:
                if isinstance(limit := news.get("limit"), int) and _fits(limit):
                    self._taker.scale_queue(queue, limit)
                self._taker.limit_queue(queue, news)
            case {"action": "pause", "queue": str(queue)}:
                self._taker.pause_queue(queue)
            case {"action": "resume", "queue": str(queue)}:
                self._taker.resume_queue(queue)

    async def _kept(self) -> Sequence[Any]:
        return await self._database.fetch(orders_to(self._name, self._node))


def _is_pause(news: Any) -> bool:
    return isinstance(news, Mapping) and news.get("action") == "pause"


def _fits(limit: int) -> bool:
    return not isinstance(limit, bool) and 0 < limit <= LARGEST_COUNT
