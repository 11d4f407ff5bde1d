"""`Heartbeat`: tells the other nodes that the producers of this node are alive."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from ..events import ServiceCancelled
from ..statements.heartbeat import beat, end
from .database import Database
from .loop_thread import LoopThread
from .pool import facts
from .producer import Producer
from .service import Emit, Service
from .time_limits import SHORTEST_ANSWER, STOP_TIMEOUT, deadline

# How long a stop waits for the current beat.
LAST_BEAT = 1.0


class Heartbeat:
    """Keeps a row for each producer in `oban_producers`, and deletes it at the end.

    A thread with its own connection writes the beats, so that a node does not look dead while a
    worker blocks the event loop. All methods are called from the event loop of the workers.
    """

    name = "heartbeat"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        instance: str,
        node: str,
        producers: Collection[Producer],
        interval: float,
        expiry: float,
        on_foreign_nodes: Callable[[], None],
    ) -> None:
        self._database = database
        self._emit = emit
        self._on_foreign_nodes = on_foreign_nodes
        self._identity = {"name": instance, "node": node}
        self._producers = producers
        self._interval = interval
        self._expiry = expiry
        self._turn = asyncio.Lock()
        self._stopped = False
        self._thread: LoopThread | None = None
        self._pulse: Pulse | None = None

    async def run_once(self) -> None:
        """Write the rows of all producers now, including new ones, and wait for the database.

        Does nothing after a stop: the caller may be a task for which the stop waits.
        """
        async with self._turn:
            if not self._stopped:
                await self._beat()

    async def start(self) -> None:
        """Write the rows, and beat from now on."""
        async with self._turn:
            thread, pulse = await self._beat()
            await thread.run(pulse.start())

    async def forget(self, producer: Producer) -> None:
        """Delete the row of one producer. If the database is down, the row expires by itself."""
        if self._pulse is not None:
            # Done first, so that it happens even if the rest fails: a row that can't be written
            # would fail every beat.
            self._pulse.drop(producer)
        async with self._turn:
            if self._thread is not None and self._pulse is not None:
                await self._thread.run(self._pulse.forget(producer))

    async def stop(self, grace: float | None = None) -> None:
        """Delete the rows and end the thread, within about `STOP_TIMEOUT` seconds.

        If the database is down, the rows expire by themselves.
        """
        async with self._turn:
            self._stopped = True
            if self._thread is None:
                return
            if self._pulse is not None:
                stop = self._pulse.stop(LAST_BEAT if grace is None else grace)
                try:
                    async with asyncio.timeout(STOP_TIMEOUT):
                        await self._thread.run(stop)
                except TimeoutError:
                    self._emit("service_cancelled", ServiceCancelled(self.name, STOP_TIMEOUT))
                # If this stop is cancelled, the next one only has to end the thread.
                self._pulse = None
            # The thread is a daemon, so it is left behind if it hangs.
            with suppress(TimeoutError):
                await self._thread.end()
            self._thread = None

    def started_at(self, uuid: UUID) -> datetime | None:
        """When a producer started, by the database's clock; `None` before its first beat."""
        return None if self._pulse is None else self._pulse.started.get(uuid)

    @property
    def has_foreign_nodes(self) -> bool:
        """Whether producers of another Oban were alive at the last beat."""
        return self._pulse is not None and self._pulse.has_foreign_nodes

    @property
    def label(self) -> str:
        """The name of this service."""
        return self.name

    @property
    def age(self) -> float | None:
        """Seconds since the last written beat; `None` before the first beat."""
        beaten_at = None if self._pulse is None else self._pulse.beaten_at
        return None if beaten_at is None else time.monotonic() - beaten_at

    @property
    def failures(self) -> int:
        """The number of failed beats in a row."""
        return 0 if self._pulse is None else self._pulse.failures

    async def _beat(self) -> tuple[LoopThread, "Pulse"]:
        if self._thread is None or self._pulse is None:
            database = self._database.apart()
            thread = self._thread = LoopThread("oban-heartbeat", database.dispose)
            self._pulse = Pulse(
                database,
                lambda name, data: thread.call_owner(self._emit, name, data),
                thread,
                identity=self._identity,
                interval=self._interval,
                expiry=self._expiry,
                on_foreign_nodes=lambda: thread.call_owner(self._on_foreign_nodes),
            )
        for producer in self._producers:
            self._pulse.keep(producer)
        await self._thread.run(self._pulse.beat())
        return self._thread, self._pulse


class Pulse(Service):
    """The part of the heartbeat that runs in its thread.

    Data that both threads read is replaced, never changed, so it needs no lock.
    """

    name = "heartbeat"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        thread: LoopThread,
        *,
        identity: Mapping[str, str],
        interval: float,
        expiry: float,
        on_foreign_nodes: Callable[[], None],
    ) -> None:
        super().__init__(emit)
        self.started: Mapping[UUID, datetime] = {}
        """When producers started, by uuid, after the first beat."""
        self.beaten_at: float | None = None
        """When the last beat was written, by `time.monotonic()`."""
        self._database = database
        self._thread = thread
        self._identity = identity
        self._interval = interval
        self._expiry = expiry
        self.has_foreign_nodes = False
        """Whether producers of another Oban were alive at the last beat."""
        self._on_foreign_nodes = on_foreign_nodes
        self._kept: tuple[Producer, ...] = ()
        self._turn = asyncio.Lock()

    @property
    def longest_retry(self) -> float:
        """At most one interval, so that the node beats soon after an outage."""
        return min(super().longest_retry, self._interval)

    def keep(self, producer: Producer) -> None:
        """Include a producer in the next beats until it is dropped. For the owner's thread."""
        if producer not in self._kept:
            self._kept = (*self._kept, producer)

    def drop(self, producer: Producer) -> None:
        """Leave a producer out of the next beats. For the owner's thread."""
        self._kept = tuple(kept for kept in self._kept if kept is not producer)

    async def run_once(self) -> float:
        """Beat, unless the event loop of the workers was closed."""
        if self._thread.deserted:
            # The workers' event loop was closed without a stop, so their jobs are orphans.
            self._stopping.set()
            self._thread.quit()
            return 0.0
        began = time.monotonic()
        await self.beat()
        return max(0.0, began + self._interval - time.monotonic())

    async def beat(self) -> None:
        """Write the rows of all producers."""
        async with self._turn:
            statement = beat([self._row(p) for p in self._kept], expiry=self._expiry)
            async with deadline(max(self._interval, SHORTEST_ANSWER)):
                rows = await self._database.fetch(statement)
            self.beaten_at = time.monotonic()
            self.started = {**self.started, **{row.uuid: row.started_at for row in rows}}
            before = self.has_foreign_nodes
            self.has_foreign_nodes = any(row.foreign for row in rows)
            if self.has_foreign_nodes and not before:
                self._on_foreign_nodes()

    async def forget(self, producer: Producer) -> None:
        """Delete the row of a dropped producer."""
        # Waits for the current beat, which would write the row again.
        async with self._turn:
            self.started = {
                uuid: when for uuid, when in self.started.items() if uuid != producer.uuid
            }
            with suppress(SQLAlchemyError, OSError):
                async with deadline(STOP_TIMEOUT):
                    await self._database.fetch(end([producer.uuid]))

    async def close(self) -> None:
        """Delete the rows."""
        started, self.started = self.started, {}
        if started:
            async with deadline(STOP_TIMEOUT):
                await self._database.fetch(end(list(started)))

    def _limits(self) -> dict[str, int]:
        return {producer.queue: producer.limit for producer in self._kept}

    def _row(self, producer: Producer) -> dict[str, Any]:
        started_at = self.started.get(producer.uuid)
        return {
            **self._identity,
            "uuid": str(producer.uuid),
            "queue": producer.queue,
            "meta": {**producer.meta, **facts(self._database.engine, self._limits())},
            "started_at": started_at and started_at.replace(tzinfo=None).isoformat(),
        }
