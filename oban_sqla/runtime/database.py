"""`Database`: the engine of an instance, the schema of its tables, and ways to run statements."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_sessionmaker,
)

from ..errors import StandbyError, sqlstate
from ..statements.claimed import Loads, loads_of
from ..statements.inspect import in_recovery
from ..wakeups import Address
from .direct_connection import forget
from .engine import EngineLike, engine_of, is_closed, with_own_pool
from .home_loop import HomeLoop
from .kept_connections import KeptConnections
from .pool import capacity, recycle
from .primary import trusting_primary
from .tables import find_schema, verify, verify_connection
from .time_limits import ANSWER_TIMEOUT, deadline

NOT_IN_AUTOCOMMIT = ("40001", "26000", "42P05")
"""SQLSTATEs of errors that a statement in AUTOCOMMIT may have, but not in its own transaction.

40001 is a conflict of isolation, for a role whose default is not READ COMMITTED. The others mean
that a prepared statement is on another connection: asyncpg prepares a statement in one message and
executes it in the next, and a transaction pooler may swap the connections between both. In all
cases, the server has not carried out the statement.
"""


class Database:
    """An engine, and the schema `prefix` in which it finds the tables.

    For a URL, an engine is created, with at most `pool_size` connections if given. `dispose` closes
    that engine. `TypeError` if `engine` is neither an `AsyncEngine`, nor an `async_sessionmaker`
    bound to one, nor a URL. `ValueError` for a URL of another database or an unusable driver.
    """

    def __init__(
        self, engine: EngineLike, prefix: str | None, *, pool_size: int | None = None
    ) -> None:
        self.engine, self.owned = engine_of(engine, pool_size)
        self._sessions = engine if isinstance(engine, async_sessionmaker) else async_sessionmaker()
        schemas = self.engine.get_execution_options().get("schema_translate_map") or {}
        self._schemas: Mapping[Any, Any] = schemas
        self._prefix: str | None = prefix or schemas.get(None)
        # While a node runs in this event loop, all statements share its kept connections.
        self._kept: tuple[asyncio.AbstractEventLoop, KeptConnections] | None = None
        self.address = Address.of(self.engine.url)
        """The address at which commits of this process are published."""
        self.home = HomeLoop()
        self.in_transactions = False
        """Whether each statement gets a transaction, since AUTOCOMMIT has failed."""
        self._bind()
        self._worker_engine = trusting_primary(self.engine)
        self.isolation: str | None = None
        """The isolation level for transactions of workers; `None` for the engine's own."""

    def _bind(self) -> None:
        self._engine = trusting_primary(self.engine).execution_options(**self.schemas)

    @property
    def loads(self) -> Loads:
        """Parses JSON as the engine does."""
        return loads_of(self.engine.dialect)

    @property
    def prefix(self) -> str | None:
        """The schema of the tables. If none was given, `None` until `verify` has found it."""
        return self._prefix

    async def verify(self, privileges: Sequence[str] = ()) -> str:
        """Find the tables, and return the name of their schema.

        `SchemaMissingError` if there are no tables. `PrivilegeMissingError` if the role may not use
        the schema, or lacks one of the privileges on a table. `ObanError` if the client encoding is
        not UTF-8, or if the connections are read-only and there are `privileges`.
        """
        await verify_connection(self.fetch, writes=bool(privileges))
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
                f"the server of database {self.engine.url.database!r} is a standby: it does not"
                " have the rows of nodes, and refuses writes; connect to the primary"
            )

    async def fetch(
        self,
        statement: Executable,
        params: Mapping[str, Any] | None = None,
        *,
        at_once: bool = False,
    ) -> Sequence[Any]:
        """Run one statement as a transaction of its own, and return its rows.

        `TimeoutError` if there is no answer; the statement may have been carried out. In a running
        node, the statement may wait a little for one of the kept connections, unless `at_once`.
        """
        if not self.in_transactions:
            try:
                return await self._fetch(statement, params, at_once)
            except DBAPIError as error:
                if not self.needs_transactions_after(error):
                    raise
        return await self._fetch(statement, params, at_once)

    def needs_transactions_after(self, error: BaseException) -> bool:
        """Whether a statement that failed in AUTOCOMMIT must be sent again in a transaction.

        If so, all later statements get transactions of their own.
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
        connections = self.transaction() if self.in_transactions else self.kept_or_pooled(at_once)
        async with deadline(ANSWER_TIMEOUT), connections as connection:
            try:
                yield connection
            except BaseException:
                # The connection may be in any state, so it must not be used again.
                await connection.invalidate()
                raise

    def kept_or_pooled(self, at_once: bool) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection on which each statement is a transaction; a kept one if a node runs."""
        kept = self._kept
        if kept is not None and kept[0] is asyncio.get_running_loop():
            return kept[1].connection(at_once=at_once)
        return self.autocommit()

    def keep_connections(self) -> None:
        """From now on, keep connections in this event loop from one statement to the next."""
        self.home.settle()
        # If the pool has a single connection, the sessions of workers need it now and then.
        kept = KeptConnections(
            self._autocommit,
            keep_last=capacity(self.engine) != 1,
            recycle=recycle(self.engine),
        )
        self._kept = asyncio.get_running_loop(), kept

    async def release_connections(self) -> None:
        """Give the kept connections back to the pool."""
        if self._kept is not None:
            (_, kept), self._kept = self._kept, None
            await kept.close()

    async def _autocommit(self) -> AsyncConnection:
        async with deadline(ANSWER_TIMEOUT):
            connection = await self._engine.connect()
            try:
                await _revive(connection)
                return await connection.execution_options(isolation_level="AUTOCOMMIT")
            except BaseException:
                await connection.close()
                raise

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which each statement is a transaction."""
        async with self._connected() as connection:
            # Set on the connection: as an option of the engine, a cancellation would lose the
            # connection.
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection with a transaction that commits at the end.

        Our statements need READ COMMITTED, whatever the default of the role is.
        """
        async with self._connected() as connection:
            await connection.execution_options(isolation_level="READ COMMITTED")
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def shared_transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction like `transaction`, on a kept connection if a node runs."""
        kept = self._kept
        if self.in_transactions or kept is None or kept[0] is not asyncio.get_running_loop():
            async with self.transaction() as connection:
                yield connection
            return
        async with kept[1].connection() as connection:
            # SQLAlchemy has begun a transaction (autobegin) with the last statement.
            await connection.rollback()
            await connection.execution_options(isolation_level="READ COMMITTED")
            refused = None
            try:
                async with connection.begin():
                    yield connection
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                # After the rollback, the connection can be used again.
                refused = error
                forget(connection)
            await connection.execution_options(isolation_level="AUTOCOMMIT")
        if refused is not None:
            raise refused

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A session that finds the tables, in a transaction that commits at the end."""
        async with (
            self.home.engine(self._engine) as engine,
            AsyncSession(engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            await session.connection(execution_options={"isolation_level": "READ COMMITTED"})
            yield session

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        async with self.home.engine(self._engine) as engine, engine.connect() as connection:
            await _revive(connection)
            yield connection

    def worker_session(self) -> AsyncSession:
        """A session for a worker, made by the given `async_sessionmaker` or a default one."""
        return self._sessions(bind=self._worker_engine)

    async def find_isolation(self) -> None:
        """Find the isolation level for workers' sessions, if the engine is in AUTOCOMMIT.

        Without a transaction, the changes of a failed worker would be kept.
        """
        async with self.engine.connect() as connection:
            raw: Any = await connection.get_raw_connection()
            in_autocommit = raw.dbapi_connection.autocommit
        if in_autocommit:
            self.isolation = self.engine.dialect.default_isolation_level

    @property
    def schemas(self) -> Mapping[str, Any]:
        """The execution options with which an engine or a statement finds the tables."""
        if not self._prefix:
            return {}
        return {"schema_translate_map": {**self._schemas, None: self._prefix}}

    def apart(self) -> "Database":
        """A copy of the database with a pool of its own, for the event loop of another thread.

        The copy connects like the engine: with its connect_args, creator and events.
        """
        apart = Database(with_own_pool(self.engine), self._prefix)
        apart.owned = True
        apart._sessions = self._sessions
        apart.isolation = self.isolation
        return apart

    async def dispose(self) -> None:
        """Close the pool if the engine was made here. The next use opens it again."""
        if self.owned:
            await self.engine.dispose()


async def _revive(connection: AsyncConnection) -> None:
    """Have SQLAlchemy connect anew if the server has closed a connection in the pool.

    A server with an `idle_session_timeout` does, and the first statement would fail.
    """
    if is_closed(connection):
        await connection.invalidate()
