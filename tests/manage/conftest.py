"""The fixtures of the tests of managing jobs: rows, each kind of session, and a listener."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from oban_sqla import Job, JobState, Oban
from tests.enqueue.conftest import Listener

Find = Callable[..., Awaitable[list[Job]]]
States = Callable[[], Awaitable[list[JobState]]]


class UnitOfWork:
    """A session of any kind, for `conn`, with the methods that the tests need."""

    def __init__(self, conn: Any, session: Any) -> None:
        self.conn = conn
        self._session = session

    async def do(self, work: Callable[[Session], Any]) -> Any:
        """Run a function with the sync session."""
        if isinstance(self._session, AsyncSession):
            return await self._session.run_sync(work)
        return work(self._session)

    async def jobs(self) -> list[Job]:
        """All jobs, loaded into the session."""
        return await self.do(lambda session: session.scalars(select(Job).order_by(Job.id)).all())


def of_async(maker: Any) -> AbstractAsyncContextManager[UnitOfWork]:
    return _async(async_sessionmaker(maker["async"], expire_on_commit=False)(), None)


def of_async_scoped(maker: Any) -> AbstractAsyncContextManager[UnitOfWork]:
    scoped = async_scoped_session(async_sessionmaker(maker["async"]), scopefunc=lambda: 1)
    return _async(scoped(), scoped)


def of_the_inner(maker: Any) -> AbstractAsyncContextManager[UnitOfWork]:
    session = async_sessionmaker(maker["async"])()
    return _async(session, session.sync_session)


def of_sync(maker: Any) -> AbstractAsyncContextManager[UnitOfWork]:
    return _sync(maker["sync"](), None)


def of_scoped(maker: Any) -> AbstractAsyncContextManager[UnitOfWork]:
    scoped = scoped_session(maker["sync"], scopefunc=lambda: 1)
    return _sync(scoped(), scoped)


@asynccontextmanager
async def _async(session: AsyncSession, conn: Any) -> AsyncIterator[UnitOfWork]:
    async with session:
        yield UnitOfWork(conn or session, session)


@asynccontextmanager
async def _sync(session: Session, conn: Any) -> AsyncIterator[UnitOfWork]:
    with session:
        yield UnitOfWork(conn or session, session)


@pytest.fixture(params=[of_async, of_async_scoped, of_the_inner, of_sync, of_scoped])
async def unit(
    request: pytest.FixtureRequest, engine: AsyncEngine, session_factory: sessionmaker[Session]
) -> AsyncIterator[UnitOfWork]:
    """Each kind of session that may be given as `conn`."""
    async with request.param({"async": engine, "sync": session_factory}) as unit:
        yield unit


@pytest.fixture
def oban(engine: AsyncEngine) -> Oban:
    """An instance that was not started."""
    return Oban(engine)


@pytest.fixture
def find(sessions: async_sessionmaker[AsyncSession]) -> Find:
    """The jobs as other transactions see them."""

    async def find() -> list[Job]:
        async with sessions() as session:
            return list(await session.scalars(select(Job).order_by(Job.id)))

    return find


@pytest.fixture
def states(find: Find) -> States:
    """The states of the jobs as other transactions see them."""

    async def states() -> list[JobState]:
        return [job.state for job in await find()]

    return states


@pytest.fixture
async def listener(postgres_dsn: str, prefix: str) -> AsyncIterator[Listener]:
    """A connection that listens to the channels of queues, the stager and signals."""
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        listener = Listener(connection, prefix)
        await listener.start()
        signal = sql.Identifier(f"{prefix}.oban_signal")
        await connection.execute(sql.SQL("LISTEN {}").format(signal))
        yield listener
