"""`Joined`: run jobs on the connection of a session, in its open transaction."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Executable
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_session
from sqlalchemy.orm import Session, scoped_session

from ..enqueue.session_of import BIND, unscoped
from ..oban import Oban
from ..statements.claimed import Loads, loads_of

T = TypeVar("T")

Awaited: TypeAlias = AsyncSession | async_scoped_session[AsyncSession] | Oban
"""The objects for which a function of this package returns an awaitable."""

Plain: TypeAlias = Session | scoped_session[Session]
"""The objects for which a function of this package returns its result."""


class Joined:
    """A connection in whose transaction jobs run.

    A worker's session joins the transaction with a savepoint. The savepoint is released together
    with the completion of the job, or rolled back. The session of the test is not used meanwhile:
    as in production, a worker must not see the instances of another session.
    """

    schemas: Mapping[str, Any] = MappingProxyType({})
    """Empty: the connection finds the tables as its session does."""

    isolation: str | None = None
    """`None`: the isolation level of the session."""

    def __init__(self, connection: Connection, kind: type[AsyncSession] = AsyncSession) -> None:
        self._connection = connection
        self._kind = kind

    @property
    def prefix(self) -> str | None:
        """The schema of the tables in the connection's `schema_translate_map`, if any."""
        schemas = self._connection.get_execution_options().get("schema_translate_map") or {}
        prefix: str | None = schemas.get(None)
        return prefix

    @property
    def loads(self) -> Loads:
        """Parses JSON as the engine of the connection does."""
        return loads_of(self._connection.dialect)

    async def fetch(
        self, statement: Executable, params: Mapping[str, Any] | None = None
    ) -> Sequence[Any]:
        """The rows of a statement."""
        # run_sync() works with a sync connection as well as with that of an AsyncSession.
        return await AsyncSession().run_sync(
            lambda _: self._connection.execute(statement, params).all()
        )

    def worker_session(self) -> AsyncSession:
        """A session in a savepoint. On a sync connection, its statements block the event loop."""
        session = self._kind(join_transaction_mode="create_savepoint")
        session.sync_session.bind = self._connection
        return session


async def join(session: AsyncSession | Session) -> Joined:
    """Flush a session, and join its transaction."""
    return Joined(await on(session, _flushed), kind_of(session))


def kind_of(session: AsyncSession | Session) -> type[AsyncSession]:
    """The class of the sessions that workers get, the same as the class of this session."""
    own = session if isinstance(session, AsyncSession) else async_session(session)
    return AsyncSession if own is None else type(own)


async def on(session: AsyncSession | Session, work: Callable[[Session], T]) -> T:
    """Call `work` with the sync session, and return its result."""
    if isinstance(session, AsyncSession):
        return await session.run_sync(work)
    return work(session)


def unwrapped(conn: object) -> AsyncSession | Session | Oban:
    """The session that `conn` is or refers to, or the `Oban`; `TypeError` for anything else."""
    conn = unscoped(conn)
    if isinstance(conn, AsyncSession | Session | Oban):
        return conn
    raise TypeError(
        "pass the session of the test (AsyncSession, async_scoped_session, Session or"
        f" scoped_session) or an Oban, not {type(conn).__module__}.{type(conn).__qualname__}"
    )


def answer(given: AsyncSession | Session | Oban, work: Coroutine[Any, Any, T]) -> Any:
    """The result of `work` for a sync session; otherwise the coroutine, for the caller to await."""
    return run(work) if isinstance(given, Session) else work


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a new event loop. An event loop that runs in this thread is blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(work)
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, "oban-testing") as thread:
        return thread.submit(context.run, _run, work).result()


def _run(work: Coroutine[Any, Any, T]) -> T:
    # Without a factory, the Runner would replace the thread's event loop, for example that of
    # pytest-asyncio.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)


def _flushed(session: Session) -> Connection:
    session.flush()
    return session.connection(BIND)
