"""`Joined`: the connection of a session, with its open transaction, as a database for jobs."""

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
"""What is asked by awaiting."""

Plain: TypeAlias = Session | scoped_session[Session]
"""What is asked by calling."""


class Joined:
    """One connection, in whose transaction jobs run.

    The session of a worker joins it: what the worker does is a savepoint, released together with
    the completion of its job, or rolled back. The session that it came from, whose instances the
    worker must not meet, as it would not meet them elsewhere, is left alone meanwhile.
    """

    schemas: Mapping[str, Any] = MappingProxyType({})
    """Nothing: the connection finds the tables as its session does."""

    isolation: str | None = None
    """That of the session."""

    def __init__(self, connection: Connection, kind: type[AsyncSession] = AsyncSession) -> None:
        self._connection = connection
        self._kind = kind

    @property
    def prefix(self) -> str | None:
        """The schema of the tables, if the connection is told."""
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
        # run_sync() is the way from a coroutine to a connection of either kind.
        return await AsyncSession().run_sync(
            lambda _: self._connection.execute(statement, params).all()
        )

    def worker_session(self) -> AsyncSession:
        """A session in a savepoint. On a sync connection its statements block the event loop."""
        session = self._kind(join_transaction_mode="create_savepoint")
        session.sync_session.bind = self._connection
        return session


async def join(session: AsyncSession | Session) -> Joined:
    """Flush a session, and join its transaction."""
    return Joined(await on(session, _flushed), kind_of(session))


def kind_of(session: AsyncSession | Session) -> type[AsyncSession]:
    """The class of the sessions that workers are given in place of this one."""
    own = session if isinstance(session, AsyncSession) else async_session(session)
    return AsyncSession if own is None else type(own)


async def on(session: AsyncSession | Session, work: Callable[[Session], T]) -> T:
    """What `work` returns for a session."""
    if isinstance(session, AsyncSession):
        return await session.run_sync(work)
    return work(session)


def unwrapped(conn: object) -> AsyncSession | Session | Oban:
    """The session that `conn` is, or stands for, or the instance; `TypeError` for another."""
    conn = unscoped(conn)
    if isinstance(conn, AsyncSession | Session | Oban):
        return conn
    raise TypeError(
        "pass the session of the test (AsyncSession, async_scoped_session, Session or"
        f" scoped_session) or an Oban, not {type(conn).__module__}.{type(conn).__qualname__}"
    )


def answer(given: AsyncSession | Session | Oban, work: Coroutine[Any, Any, T]) -> Any:
    """The result of `work` for a sync session; for others the coroutine, to be awaited."""
    return run(work) if isinstance(given, Session) else work


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end, on an event loop of its own; one that runs in this thread stands still."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(work)
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, "oban-testing") as thread:
        return thread.submit(context.run, _run, work).result()


def _run(work: Coroutine[Any, Any, T]) -> T:
    # With a factory, so that the thread keeps the event loop that was set for it, by pytest-asyncio
    # for example.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)


def _flushed(session: Session) -> Connection:
    session.flush()
    return session.connection(BIND)
