"""Get the engine of an instance: the given engine, or a new engine for a URL."""

from selectors import EVENT_READ, DefaultSelector
from typing import Any, TypeAlias

import psycopg
from sqlalchemy import URL, Engine
from sqlalchemy.exc import InvalidRequestError, NoSuchModuleError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import sessionmaker

from ..dsn import connect_arguments, database_url

EngineLike: TypeAlias = AsyncEngine | async_sessionmaker[AsyncSession] | URL | str


def engine_of(given: object, pool_size: int | None) -> tuple[AsyncEngine, bool]:
    """The engine, and whether it was made here, with at most `pool_size` connections."""
    if isinstance(given, AsyncEngine):
        return given, False
    if isinstance(given, async_sessionmaker):
        bind = given.kw.get("bind")
        if isinstance(bind, AsyncEngine):
            return bind, False
        if isinstance(bind, URL | str):
            return engine_of(bind, pool_size)
        raise TypeError(f"the async_sessionmaker must be bound to an AsyncEngine, not to {bind!r}")
    if isinstance(given, URL | str):
        url, arguments = connect_arguments(database_url(given))
        pool = {} if pool_size is None else {"pool_size": pool_size, "max_overflow": 0}
        try:
            return create_async_engine(url, connect_args=arguments, **pool), True
        except (NoSuchModuleError, InvalidRequestError, ImportError) as error:
            raise ValueError(
                f"the DSN names a driver that can't be used: {error}; use postgresql+psycopg://"
            ) from error
    hint = "; a sync engine can't run jobs: make one with create_async_engine()"
    raise TypeError(
        "Oban takes an AsyncEngine, an async_sessionmaker or a URL,"
        f" not {type(given).__name__}{hint if isinstance(given, Engine | sessionmaker) else ''}"
    )


def with_own_pool(engine: AsyncEngine) -> AsyncEngine:
    """A copy of an engine with its own pool, and the same connect_args, creator and events."""
    # `create_async_engine()` would make another dialect, which asks the server for its version and
    # settings in five statements, and shares no compiled statements.
    return AsyncEngine(
        Engine(
            engine.pool.recreate(),
            engine.dialect,
            engine.url,
            execution_options=engine.get_execution_options(),
        )
    )


def driver_of(connection: AsyncConnection) -> psycopg.AsyncConnection:
    """The psycopg connection behind an open connection of SQLAlchemy."""
    # `get_raw_connection()` switches to a greenlet, since it may reconnect. That costs 15 µs.
    assert connection.sync_connection is not None
    driver = connection.sync_connection.connection.driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)
    return driver


def is_closed(connection: AsyncConnection) -> bool:
    """Whether an unused connection was closed, perhaps by the server, without asking the server."""
    if connection.invalidated or connection.sync_connection is None:
        return True
    driver: Any = connection.sync_connection.connection.driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        asks = getattr(driver, "is_closed", None)  # asyncpg
        return asks is not None and bool(asks())
    if driver.closed:
        return True
    # psycopg does not read from an unused connection. Data to read there means that the server has
    # closed it.
    with DefaultSelector() as selector:
        selector.register(driver, EVENT_READ)
        return bool(selector.select(0))
