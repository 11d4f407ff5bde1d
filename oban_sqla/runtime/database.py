"""The database of an instance: its engine, the schema of its tables, the ways to a statement."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from weakref import ref

import psycopg
from sqlalchemy import Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
)

from ..errors import ObanError, StandbyError, sqlstate
from ..statements.claimed import Loads, loads_of
from ..statements.inspect import encoding, in_recovery
from ..wakeups import Address
from .engine import EngineLike, engine_of, with_own_pool
from .kept_connections import KeptConnections
from .primary import trusting_primary
from .tables import find_schema, verify
from .time_limits import ANSWER_TIMEOUT, deadline

NOT_IN_AUTOCOMMIT = ("40001", "26000", "42P05")
"""By SQLSTATE: what a statement is spared that has a transaction of its own.

A conflict of isolation, for a role whose default is not READ COMMITTED. And a prepared statement
that is on another connection: asyncpg prepares each statement in one message and executes it in the
next, between which a transaction pooler may swap the connections. Nothing was carried out.
"""


class Database:
    """An engine, and the schema `prefix` in which it finds the tables.

    A URL makes an engine of its own, with a pool of at most `pool_size` connections if that is
    given, which `dispose` disposes of; `TypeError` for what is neither
    an `AsyncEngine`, nor an `async_sessionmaker` bound to one, nor a URL; `ValueError` for a URL
    that names another database or a driver that can't be used.
    """

    def __init__(
        self, engine: EngineLike, prefix: str | None, *, pool_size: int | None = None
    ) -> None:
        self.engine, self.owned = engine_of(engine, pool_size)
        self._sessions = engine if isinstance(engine, async_sessionmaker) else async_sessionmaker()
        schemas = self.engine.get_execution_options().get("schema_translate_map") or {}
        self._schemas: Mapping[Any, Any] = schemas
        self._prefix: str | None = prefix or schemas.get(None)
        # While a node runs in this event loop, its statements share the connections that it keeps.
        self._kept: tuple[asyncio.AbstractEventLoop, KeptConnections] | None = None
        self._home: ref[asyncio.AbstractEventLoop] | None = None
        self.in_transactions = False
        """Whether single statements have transactions of their own, since AUTOCOMMIT failed."""
        self._bind()

        self._worker_engine = trusting_primary(self.engine)
        self.isolation: str | None = None
        """The isolation level of a worker's transaction; `None` if the engine has one."""

    def _bind(self) -> None:
        self._engine = trusting_primary(self.engine).execution_options(**self.schemas)

    @property
    def loads(self) -> Loads:
        """Parses JSON as the engine does."""
        return loads_of(self.engine.dialect)

    @property
    def address(self) -> Address:
        """Where commits in this process are published."""
        return Address.of(self.engine.url)

    @property
    def prefix(self) -> str | None:
        """The schema of the tables; `None` until `verify` found it, if none was given."""
        return self._prefix

    async def verify(self, privileges: Sequence[str] = ()) -> str:
        """Find the tables, and return the name of their schema.

        `SchemaMissingError` without tables, `PrivilegeMissingError` if the role may not use their
        schema, or lacks one of the privileges on one of them; `ObanError` if the text of the
        connections is not UTF-8.
        """
        (row,) = await self.fetch(encoding())
        if row[0] != "UTF8":
            raise ObanError(
                f"the engine's connections have text in {row[0]}, where psycopg can't read JSON:"
                ' make the engine with connect_args={"client_encoding": "utf8"}'
            )
        name = self.engine.url.database
        if self._prefix is None:
            self._prefix = await find_schema(self.fetch, name)
            self._bind()
        await verify(self.fetch, name, self._prefix, privileges)
        assert self._prefix is not None
        return self._prefix

    async def require_primary(self) -> None:
        """Raise `StandbyError` if the server is a standby."""
        ((standby,),) = await self.fetch(in_recovery())
        if standby:
            raise StandbyError(
                f"the server of database {self.engine.url.database!r} is a standby: its copy does"
                " not have the rows of nodes, and nothing can be written; name the primary"
            )

    async def fetch(
        self,
        statement: Executable,
        params: Mapping[str, Any] | None = None,
        *,
        at_once: bool = False,
    ) -> Sequence[Any]:
        """Run one statement, which is a transaction of its own, and return its rows.

        `TimeoutError` when there is no answer; the statement may have been carried out. In a
        running node the statement may wait a little for one of the connections that the node
        keeps, but not `at_once`.
        """
        if not self.in_transactions:
            try:
                return await self._fetch(statement, params, at_once)
            except DBAPIError as error:
                if not self.needs_transactions_after(error):
                    raise
        return await self._fetch(statement, params, at_once)

    def needs_transactions_after(self, error: BaseException) -> bool:
        """Whether a statement that failed in AUTOCOMMIT is to be sent again, in a transaction.

        If so, all statements have transactions of their own from now on.
        """
        if sqlstate(error) not in NOT_IN_AUTOCOMMIT:
            return False
        self.in_transactions = True
        return True

    async def _fetch(
        self, statement: Executable, params: Mapping[str, Any] | None, at_once: bool
    ) -> Sequence[Any]:
        async with self.statement(at_once=at_once) as connection:
            result = await connection.execute(statement, params)
            return result.all() if result.returns_rows else []

    @asynccontextmanager
    async def statement(self, *, at_once: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection for one statement, as in `fetch`."""
        kept = self._kept
        connections: AbstractAsyncContextManager[AsyncConnection]
        if self.in_transactions:
            connections = self.transaction()
        elif kept is not None and kept[0] is asyncio.get_running_loop():
            connections = kept[1].connection(at_once=at_once)
        else:
            connections = self.autocommit()
        async with deadline(ANSWER_TIMEOUT), connections as connection:
            try:
                yield connection
            except BaseException:
                # The connection may be in any state, so it is not used again.
                await connection.invalidate()
                raise

    def keep_connections(self) -> None:
        """From now on, keep the connections of statements in this event loop for the next ones."""
        self._home = ref(asyncio.get_running_loop())
        self._kept = asyncio.get_running_loop(), KeptConnections(self._autocommit)

    async def release_connections(self) -> None:
        """Give the kept connections back to the pool."""
        if self._kept is not None:
            (_, kept), self._kept = self._kept, None
            await kept.close()

    async def _autocommit(self) -> AsyncConnection:
        async with deadline(ANSWER_TIMEOUT):
            connection = await self._engine.connect()
            try:
                return await connection.execution_options(isolation_level="AUTOCOMMIT")
            except BaseException:
                await connection.close()
                raise

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which each statement is a transaction."""
        async with self._connected() as connection:
            # By an option of the engine it would be lost to the pool if that is cancelled.
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection with a transaction that commits at the end.

        Our statements are made for READ COMMITTED, whatever is the default of the role.
        """
        async with self._connected() as connection:
            await connection.execution_options(isolation_level="READ COMMITTED")
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def shared_transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction like `transaction`, on a connection that a running node keeps anyway."""
        kept = self._kept
        if self.in_transactions or kept is None or kept[0] is not asyncio.get_running_loop():
            async with self.transaction() as connection:
                yield connection
            return
        async with kept[1].connection() as connection:
            # SQLAlchemy has begun a transaction of its own with the last statement.
            await connection.rollback()
            await connection.execution_options(isolation_level="READ COMMITTED")
            refused = None
            try:
                async with connection.begin():
                    yield connection
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                # The rollback leaves the connection as good as before.
                refused = error
            await connection.execution_options(isolation_level="AUTOCOMMIT")
        if refused is not None:
            raise refused

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A session that finds the tables, in a transaction of ours that commits at the end."""
        async with (
            self._of_this_loop(self._engine) as engine,
            AsyncSession(engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            await session.connection(execution_options={"isolation_level": "READ COMMITTED"})
            yield session

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        async with self._of_this_loop(self._engine) as engine, engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def _of_this_loop(self, engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
        """An engine for a short use: in another event loop than ours, one with its own pool.

        A connection belongs to the event loop that made it. Used in another one it breaks, and
        with it whoever gets it from the pool next.
        """
        if self.is_at_home():
            yield engine
            return
        apart = with_own_pool(engine)
        try:
            yield apart
        finally:
            await apart.dispose()

    def is_at_home(self) -> bool:
        """Whether the engine's pool belongs to the running event loop: the first one that lives."""
        loop = asyncio.get_running_loop()
        home = self._home() if self._home is not None else None
        if home is None or home.is_closed():
            self._home = ref(loop)
            return True
        return home is loop

    def worker_session(self) -> AsyncSession:
        """A session for a worker: as the given `async_sessionmaker` makes them, or plain."""
        return self._sessions(bind=self._worker_engine)

    async def find_isolation(self) -> None:
        """See to it that the sessions of workers have transactions, on an engine in AUTOCOMMIT too.

        Without one, a worker's changes would be kept though its job fails.
        """
        async with self.engine.connect() as connection:
            raw: Any = await connection.get_raw_connection()
            in_autocommit = raw.dbapi_connection.autocommit
        if in_autocommit:
            self.isolation = self.engine.dialect.default_isolation_level

    @property
    def schemas(self) -> Mapping[str, Any]:
        """The execution options with which an engine, or a statement, finds the tables."""
        if not self._prefix:
            return {}
        return {"schema_translate_map": {**self._schemas, None: self._prefix}}

    @asynccontextmanager
    async def psycopg_connection(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """A connection of psycopg from the engine's pool; `ObanError` for another driver.

        What is open at the end is committed, or rolled back after an exception.
        """
        async with self._of_this_loop(self.engine) as engine, engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            if not isinstance(driver, psycopg.AsyncConnection):
                raise ObanError(
                    f"connection() gives a psycopg connection, but the engine's driver is"
                    f" {self.engine.dialect.driver}: use postgresql+psycopg:// in its URL"
                )
            try:
                yield driver
            except BaseException:
                await driver.rollback()
                raise
            await driver.commit()

    def apart(self) -> "Database":
        """The same database through a pool of its own, for the event loop of another thread.

        It connects as the engine does: with its connect_args, creator and events.
        """
        apart = Database(with_own_pool(self.engine), self._prefix)
        apart.owned = True
        apart._sessions = self._sessions
        apart.isolation = self.isolation
        return apart

    async def dispose(self) -> None:
        """Close the pool of an engine that was made here; its next use opens it again."""
        if self.owned:
            await self.engine.dispose()
