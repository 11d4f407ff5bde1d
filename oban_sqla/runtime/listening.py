"""LISTEN on a connection of its own, made in the engine's own way, through psycopg or asyncpg."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol, runtime_checkable

import psycopg
from psycopg import sql
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..dsn import listen_target
from ..errors import ObanError

Hear = Callable[[str, str], None]
"""Takes the channel and the payload of a notification."""

CLOSED = "the connection that listens was closed"


class ListenUnsupportedError(ObanError):
    """The driver of the engine can't LISTEN."""

    __module__ = "oban_sqla"


@runtime_checkable
class Asyncpg(Protocol):
    """What is used of a connection of asyncpg, which need not be installed."""

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None: ...
    def add_termination_listener(self, callback: Callable[..., None]) -> None: ...
    def terminate(self) -> None: ...


@asynccontextmanager
async def listening(
    engine: AsyncEngine, listen_dsn: str | None, channels: Sequence[str], hear: Hear
) -> AsyncIterator[Awaitable[None]]:
    """Listen on the channels. Gives what hears, to be awaited: it ends only by an error.

    The connection comes from the engine, so that its connect_args, creator and events apply, and
    leaves its pool. If `listen_dsn` is given, it names the connection instead.
    `ListenUnsupportedError` for another driver.
    """
    async with AsyncExitStack() as opened:
        if listen_dsn is not None:
            url, arguments = listen_target(listen_dsn)
            engine = create_async_engine(url, connect_args=arguments, poolclass=NullPool)
            opened.push_async_callback(engine.dispose)
        driver = await opened.enter_async_context(_detached(engine))
        if isinstance(driver, psycopg.AsyncConnection):
            for channel in channels:
                await driver.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            yield _read(driver, hear)
        else:
            closed = asyncio.Event()
            driver.add_termination_listener(lambda _: closed.set())
            for channel in channels:
                await driver.add_listener(
                    channel, lambda _, pid, channel, payload: hear(channel, payload)
                )
            yield _until(closed)


@asynccontextmanager
async def _detached(engine: AsyncEngine) -> AsyncIterator[psycopg.AsyncConnection | Asyncpg]:
    """The driver's connection, in autocommit, and no longer in the pool of the engine."""
    async with engine.connect() as pooled:
        connection = await pooled.execution_options(isolation_level="AUTOCOMMIT")
        driver = (await connection.get_raw_connection()).driver_connection
        if not isinstance(driver, psycopg.AsyncConnection | Asyncpg):
            raise ListenUnsupportedError(
                f"LISTEN works with psycopg and asyncpg, not with {engine.dialect.driver}: name a"
                " connection for it with listen_dsn=, or choose notify='poll'"
            )
        await connection.run_sync(lambda sync: sync.detach())
        try:
            yield driver
        finally:
            # The pool of an async engine lets go of a detached connection, unclosed.
            await connection.invalidate()
            if isinstance(driver, psycopg.AsyncConnection):
                await driver.close()
            else:
                driver.terminate()


async def _read(connection: psycopg.AsyncConnection, hear: Hear) -> None:
    async for notification in connection.notifies():
        hear(notification.channel, notification.payload)
    raise ObanError(CLOSED)


async def _until(closed: asyncio.Event) -> None:
    await closed.wait()
    raise ObanError(CLOSED)
