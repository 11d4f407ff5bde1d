"""`KeptConnections`: connections that a node keeps from one statement to the next."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy.ext.asyncio import AsyncConnection

from ..errors import sqlstate
from .engine import is_closed

GROW_AFTER = 0.1
"""Seconds that a statement waits for a connection before another one is taken."""
KEEP = 1.0
"""Seconds without a statement after which a connection is closed, except the last one."""


class KeptConnections:
    """Connections in AUTOCOMMIT, taken from the engine's pool and kept while a node runs.

    Getting a connection from the pool for each statement costs more than the statement. Waiting
    statements are served in order. A connection that was not used for `KEEP` seconds is closed. The
    last one stays, so an idle node has one connection of the pool. If it went back, the pool would
    fill the slots of the closed ones again, since a pool gives out its slots in turn.

    The connections belong to the event loop in which they are first used.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[AsyncConnection]],
        *,
        keep_last: bool = True,
        recycle: float = math.inf,
    ) -> None:
        """keep_last: if false, an unused last connection goes back to the pool, too.

        recycle: seconds after which a connection is replaced.
        """
        self._connect = connect
        self._recycle = recycle
        self._taken_at: WeakKeyDictionary[AsyncConnection, float] = WeakKeyDictionary()
        self._least = 1 if keep_last else 0
        # Last in, first out, so that connections that a lower load does not need stay unused.
        self._free: list[tuple[AsyncConnection, float]] = []
        # The waiting statements, and whether each of them is `at_once`.
        self._waiting: deque[tuple[asyncio.Future[AsyncConnection], bool]] = deque()
        self._open = 0
        self._growing: asyncio.Task[None] | None = None
        self._growth: asyncio.TimerHandle | None = None
        self._giving_up: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @asynccontextmanager
    async def connection(self, *, at_once: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection for one statement. After an error the connection is closed.

        at_once: if all connections are in use, take another one instead of waiting.
        """
        connection = await self._acquire(at_once)
        try:
            yield connection
        except BaseException as error:
            if not sqlstate(error):
                # The server did not answer. If it has vanished, the next statement would wait for
                # its answer on a free connection just as long.
                self._discard_free()
            self._discard(connection)
            raise
        if time.monotonic() - self._taken_at[connection] > self._recycle:
            self._discard(connection)
        else:
            self._release(connection)

    async def close(self) -> None:
        """Give the connections back to the pool: those in use when their statements end."""
        self._closed = True
        for timer in (self._growth, self._giving_up):
            if timer is not None:
                timer.cancel()
        self._growth = self._giving_up = None
        if self._growing is not None:
            self._growing.cancel()
            await asyncio.wait([self._growing])
        while self._free:
            connection, _ = self._free.pop()
            self._open -= 1
            await _returned(connection)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _acquire(self, at_once: bool) -> AsyncConnection:
        while self._free:
            connection, since = self._free.pop()
            if time.monotonic() - since < KEEP or not is_closed(connection):
                return connection
            # The server has closed it, and the statement would fail.
            self._open -= 1
            self._in_background(_closed(connection))
        waiter: asyncio.Future[AsyncConnection] = asyncio.get_running_loop().create_future()
        self._waiting.append((waiter, at_once))
        self._grow_if_wanted()
        try:
            return await waiter
        except BaseException:
            if (waiter, at_once) in self._waiting:
                self._waiting.remove((waiter, at_once))
            elif not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())
            raise

    def _release(self, connection: AsyncConnection) -> None:
        while self._waiting:
            waiter, _ = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        if self._closed:
            self._open -= 1
            self._in_background(_returned(connection))
            return
        self._free.append((connection, time.monotonic()))
        self._give_up_in(KEEP)

    def _discard(self, connection: AsyncConnection) -> None:
        self._open -= 1
        self._in_background(_closed(connection))
        self._grow_if_wanted()

    def _discard_free(self) -> None:
        free, self._free = self._free, []
        self._open -= len(free)
        for connection, _ in free:
            self._in_background(_closed(connection))

    def _grow_if_wanted(self) -> None:
        """Take another connection for waiting statements, at once or after `GROW_AFTER`."""
        if not self._waiting or self._growing is not None:
            return
        if not self._open or any(at_once for _, at_once in self._waiting):
            self._grow()
        elif self._growth is None:
            self._growth = asyncio.get_running_loop().call_later(GROW_AFTER, self._grow)

    def _grow(self) -> None:
        if self._growth is not None:
            self._growth.cancel()
            self._growth = None
        if self._waiting and self._growing is None:
            self._growing = asyncio.create_task(self._add(), name="oban-connection")
            self._growing.add_done_callback(self._grown)

    def _grown(self, _: asyncio.Task[None]) -> None:
        # Also called if the task was cancelled before its first step: the event loop ends, but the
        # stop of the node has statements that wait.
        self._growing = None
        self._grow_if_wanted()

    async def _add(self) -> None:
        """Take another connection. Only one task at a time does this."""
        try:
            connection = await self._connect()
        except Exception as error:
            # If other connections are in use, the statements wait until one of them is free.
            if not self._open:
                self._fail(error)
        else:
            self._open += 1
            self._taken_at[connection] = time.monotonic()
            self._release(connection)

    def _fail(self, error: Exception) -> None:
        while self._waiting:
            waiter, _ = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    def _give_up_in(self, seconds: float) -> None:
        if self._giving_up is None and self._open > self._least:
            loop = asyncio.get_running_loop()
            self._giving_up = loop.call_later(seconds, self._give_up_unused)

    def _give_up_unused(self) -> None:
        self._giving_up = None
        now = time.monotonic()
        kept = []
        for connection, since in self._free:
            if now - since < KEEP or self._open == self._least:
                kept.append((connection, since))
                continue
            self._open -= 1
            self._in_background(_closed(connection) if self._open else _returned(connection))
        self._free = kept
        if kept:
            self._give_up_in(KEEP - (now - min(since for _, since in kept)))

    def _in_background(self, closing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _closed(connection: AsyncConnection) -> None:
    # If the server is gone, there is nothing to close.
    with suppress(Exception):
        await connection.invalidate()
        await connection.close()


async def _returned(connection: AsyncConnection) -> None:
    with suppress(Exception):
        await connection.close()
