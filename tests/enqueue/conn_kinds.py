"""Each kind of `conn`, with the verbs that its user has for the transaction."""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import psycopg
import psycopg2
from psycopg.rows import dict_row, namedtuple_row
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import scoped_session, sessionmaker

from tests.databases import async_engine, sync_engine


async def done(result: Any) -> Any:
    """The result of a call, sync or async."""
    return await result if inspect.isawaitable(result) else result


@asynccontextmanager
async def entered(context: Any) -> AsyncIterator[None]:
    """Enter a context manager, sync or async."""
    if hasattr(context, "__aenter__"):
        async with context:
            yield
    else:
        with context:
            yield


class MisfortuneError(Exception):
    """An error that ends a transaction or a savepoint."""


@asynccontextmanager
async def ending_badly(context: Any) -> AsyncIterator[None]:
    """Run a block in a transaction or savepoint that ends with an exception."""
    with suppress(MisfortuneError):
        async with entered(context):
            yield
            raise MisfortuneError


class ConnKind:
    """A `conn`, and the transaction around it."""

    flushes = False
    """Whether jobs are inserted by a flush, as through a session."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    async def run(self, sql: str) -> None:
        """Run a statement of the user in the user's transaction."""
        await done(self.conn.execute(text(sql)))

    async def flush(self) -> None:
        if self.flushes:
            await done(self.conn.flush())

    async def commit(self) -> None:
        await done(self.conn.commit())

    async def rollback(self) -> None:
        await done(self.conn.rollback())

    def savepoint(self) -> Any:
        """A context that releases the savepoint, or rolls back to it after an exception."""
        return entered(self.conn.begin_nested())


class SessionKind(ConnKind):
    flushes = True


class DriverKind(ConnKind):
    """A psycopg connection, or a cursor of one."""

    def __init__(self, conn: Any, connection: Any, pipeline: Any = None) -> None:
        super().__init__(conn)
        self.connection = connection
        self.pipeline = pipeline

    async def run(self, sql: str) -> None:
        await done(self.connection.execute(sql))

    async def commit(self) -> None:
        await done(self.connection.commit())
        if self.pipeline is not None:
            await self.pipeline.sync()

    async def rollback(self) -> None:
        await done(self.connection.rollback())
        if self.pipeline is not None:
            await self.pipeline.sync()

    def savepoint(self) -> Any:
        return entered(self.connection.transaction())


class Psycopg2Kind(DriverKind):
    async def run(self, sql: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        await self.run("SAVEPOINT here")
        try:
            yield
        except BaseException:
            await self.run("ROLLBACK TO SAVEPOINT here")
            raise
        await self.run("RELEASE SAVEPOINT here")


class ReturnsRows:
    """A user's wrapper, whose `execute` returns a list."""

    def __init__(self, connection: psycopg.AsyncConnection, row_factory: Any = None) -> None:
        self._cursor = connection.cursor(**({"row_factory": row_factory} if row_factory else {}))

    async def execute(self, sql: Any, params: Any = None) -> Any:
        await self._cursor.execute(sql, params)
        return await self._cursor.fetchall()


class ReturnsNothing(ReturnsRows):
    """An async wrapper like a DBAPI cursor: `execute` returns nothing, and there is `fetchall`."""

    async def execute(self, sql: Any, params: Any = None) -> Any:
        await self._cursor.execute(sql, params)

    async def fetchall(self) -> Any:
        return await self._cursor.fetchall()


class ReturnsCursor(ReturnsRows):
    async def execute(self, sql: Any, params: Any = None) -> Any:
        return await self._cursor.execute(sql, params)


class ReturnsMappings:
    """A sync wrapper whose rows are dicts."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def execute(self, sql: Any, params: Any = None) -> Any:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return iter(cursor.execute(sql, params).fetchall())


Opened = AsyncIterator[ConnKind]
Opener = Callable[[str, str], Any]
CONN_KINDS: dict[str, Opener] = {}
"""Openers by name; each is called with the DSN and the schema of the tables."""


def _add(name: str) -> Callable[[Any], Any]:
    def add(function: Any) -> Any:
        CONN_KINDS[name] = asynccontextmanager(function)
        return function

    return add


def _sqlalchemy(name: str, driver: str, make: Callable[[Any], Any], kind: type[ConnKind]) -> None:
    @_add(name)
    async def open_async(dsn: str, prefix: str) -> Opened:
        engine = async_engine(dsn, prefix, driver)
        conn = make(engine)
        if kind is ConnKind:
            conn = await conn.start()
        try:
            yield kind(conn)
        finally:
            await conn.close()
            await engine.dispose()


def _sqlalchemy_sync(
    name: str, driver: str, make: Callable[[Any], Any], kind: type[ConnKind]
) -> None:
    @_add(name)
    async def open_sync(dsn: str, prefix: str) -> Opened:
        engine = sync_engine(dsn, prefix, driver)
        conn = make(engine)
        try:
            yield kind(conn)
        finally:
            conn.close()
            engine.dispose()


def _scoped(engine: Any) -> Any:
    return async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1)


for driver in ("psycopg", "asyncpg"):
    _sqlalchemy(f"AsyncSession-{driver}", driver, AsyncSession, SessionKind)
    _sqlalchemy(f"AsyncConnection-{driver}", driver, lambda e: e.connect(), ConnKind)
_sqlalchemy("async_scoped_session", "psycopg", _scoped, SessionKind)
for driver in ("psycopg", "psycopg2"):
    _sqlalchemy_sync(f"Session-{driver}", driver, lambda e: sessionmaker(e)(), SessionKind)
    _sqlalchemy_sync(f"Connection-{driver}", driver, lambda e: e.connect(), ConnKind)
_sqlalchemy_sync(
    "scoped_session", "psycopg", lambda e: scoped_session(sessionmaker(e)), SessionKind
)


def _psycopg(name: str, make: Callable[[Any], Any] = lambda c: c, **options: Any) -> None:
    @_add(name)
    async def open_psycopg(dsn: str, prefix: str) -> Opened:
        async with await psycopg.AsyncConnection.connect(dsn, **options) as connection:
            yield DriverKind(make(connection), connection)
            await connection.rollback()


def _psycopg_sync(name: str, make: Callable[[Any], Any] = lambda c: c, **options: Any) -> None:
    @_add(name)
    async def open_psycopg_sync(dsn: str, prefix: str) -> Opened:
        with psycopg.connect(dsn, **options) as connection:
            yield DriverKind(make(connection), connection)
            connection.rollback()


_psycopg("psycopg.AsyncConnection")
_psycopg("psycopg.AsyncConnection-dict_row", row_factory=dict_row)
_psycopg("psycopg.AsyncConnection-raw", cursor_factory=psycopg.AsyncRawCursor)
_psycopg("psycopg.AsyncConnection-client", cursor_factory=psycopg.AsyncClientCursor)
_psycopg("psycopg.AsyncCursor", lambda c: c.cursor())
_psycopg("psycopg.AsyncCursor-namedtuple_row", lambda c: c.cursor(row_factory=namedtuple_row))
_psycopg("psycopg.AsyncRawCursor", psycopg.AsyncRawCursor)
_psycopg_sync("psycopg.Connection")
_psycopg_sync("psycopg.Connection-dict_row", row_factory=dict_row)
_psycopg_sync("psycopg.Cursor", lambda c: c.cursor())
_psycopg_sync("psycopg.ClientCursor", psycopg.ClientCursor)
_psycopg("foreign-rows", ReturnsRows)
_psycopg("foreign-dict_rows", lambda c: ReturnsRows(c, dict_row))
_psycopg("foreign-nothing", ReturnsNothing)
_psycopg("foreign-cursor", ReturnsCursor)
_psycopg_sync("foreign-mappings", ReturnsMappings)


@_add("psycopg.AsyncConnection-pipeline")
async def open_pipeline(dsn: str, prefix: str) -> Opened:
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(await psycopg.AsyncConnection.connect(dsn))
        pipeline = await stack.enter_async_context(connection.pipeline())
        yield DriverKind(connection, connection, pipeline)
        await connection.rollback()


@_add("psycopg2.cursor")
async def open_psycopg2(dsn: str, prefix: str) -> Opened:
    connection = psycopg2.connect(dsn)
    try:
        yield Psycopg2Kind(connection.cursor(), connection)
    finally:
        connection.close()


MAIN_KINDS = [
    "AsyncSession-psycopg",
    "AsyncConnection-psycopg",
    "AsyncConnection-asyncpg",
    "Session-psycopg",
    "Connection-psycopg2",
    "psycopg.AsyncConnection",
    "psycopg.AsyncConnection-pipeline",
    "psycopg.Cursor",
    "psycopg2.cursor",
    "foreign-rows",
]
"""Kinds that take different code paths. Each other kind differs from one of them only in its
parameters or rows.
"""


@asynccontextmanager
async def opened(name: str, dsn: str, prefix: str) -> Opened:
    async with CONN_KINDS[name](dsn, prefix) as kind:
        yield kind
