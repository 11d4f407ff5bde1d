"""`Listening`: LISTEN on a connection of its own, through psycopg or asyncpg."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import psycopg
from psycopg import sql
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ..dsn import listen_target
from ..errors import ObanError
from .engine import with_own_pool

Hear = Callable[[str, str], None]
"""Takes the channel and the payload of a notification."""


class ListenUnsupportedError(ObanError):
    """The driver of the engine can't LISTEN."""

    __module__ = "oban_sqla"


@runtime_checkable
class Asyncpg(Protocol):
    """The used methods of an asyncpg connection, since asyncpg need not be installed."""

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None: ...
    def add_termination_listener(self, callback: Callable[..., None]) -> None: ...
    def terminate(self) -> None: ...


class Listening:
    """A connection that listens.

    The connection is made as the engine makes its own, with its connect_args, creator and events,
    but is not of its pool: a connection that leaves a pool leaves an empty slot, which the pool
    fills in its turn. If `listen_dsn` is given, it is used instead.

    This is a class instead of an async generator: at the end of an event loop, asyncio closes all
    generators at the same time, also nested ones, and reports errors for them.
    """

    def __init__(self, engine: AsyncEngine, listen_dsn: str | None) -> None:
        if listen_dsn is None:
            self._engine = with_own_pool(engine)
        else:
            url, arguments = listen_target(listen_dsn)
            self._engine = create_async_engine(url, connect_args=arguments, poolclass=NullPool)
        self._connection: AsyncConnection | None = None
        self._driver: psycopg.AsyncConnection | Asyncpg | None = None
        self._closed = asyncio.Event()

    async def open(self, channels: Iterable[str], hear: Hear) -> None:
        """Connect, and listen on the channels. `ListenUnsupportedError` for another driver."""
        try:
            driver = await self._connect()
            if isinstance(driver, psycopg.AsyncConnection):
                # For notifications that psycopg reads with the answer to a LISTEN.
                driver.add_notify_handler(lambda news: hear(news.channel, news.payload))
            for channel in channels:
                if isinstance(driver, psycopg.AsyncConnection):
                    await driver.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                else:
                    await driver.add_listener(channel, lambda _, pid, name, text: hear(name, text))
        except BaseException:
            await self.close()
            raise
        self._hear = hear

    async def read(self) -> None:
        """Call `hear` for notifications until the connection breaks. Always ends with an error."""
        if isinstance(self._driver, psycopg.AsyncConnection):
            await self._read_socket(self._driver)
        else:
            await self._closed.wait()
        raise ObanError("the connection that listens was closed")

    async def _read_socket(self, driver: psycopg.AsyncConnection) -> None:
        # psycopg's `notifies()` takes 80 µs of CPU for a notification, since it adds the socket to
        # the event loop and removes it again for each one. This takes 12 µs.
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        libpq, encoding = driver.pgconn, driver.info.encoding
        socket = libpq.socket

        def read() -> None:
            try:
                libpq.consume_input()
                while (news := libpq.notifies()) is not None:
                    self._hear(news.relname.decode(encoding), news.extra.decode(encoding))
            except Exception as error:
                # libpq may have closed the socket, whose number another one can get.
                loop.remove_reader(socket)
                if not ended.done():
                    ended.set_exception(error)

        loop.add_reader(socket, read)
        try:
            read()  # what libpq has read already
            await ended
        finally:
            if ended.cancelled():
                loop.remove_reader(socket)

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        driver, self._driver = self._driver, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()
        # The pool of an async engine does not close a detached connection.
        if isinstance(driver, psycopg.AsyncConnection):
            await driver.close()
        elif driver is not None:
            driver.terminate()
        await self._engine.dispose()

    async def _connect(self) -> psycopg.AsyncConnection | Asyncpg:
        connection = await self._engine.connect()
        try:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            driver = (await connection.get_raw_connection()).driver_connection
            if not isinstance(driver, psycopg.AsyncConnection | Asyncpg):
                name = self._engine.dialect.driver
                raise ListenUnsupportedError(
                    f"LISTEN works with psycopg and asyncpg, not with {name}: name a connection for"
                    " LISTEN with listen_dsn=, or choose notify='poll'"
                )
            await connection.run_sync(lambda sync: sync.detach())
        except BaseException:
            await connection.close()
            raise
        self._connection, self._driver = connection, driver
        if not isinstance(driver, psycopg.AsyncConnection):
            driver.add_termination_listener(lambda _: self._closed.set())
        return driver
