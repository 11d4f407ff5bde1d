"""Permits of a rate for code outside of jobs."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import RootTransaction, select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from oban_sqla import Job, Oban, Rate, Worker
from tests.blocking import until_blocking
from tests.conftest import Add, StartOban
from tests.databases import sync_engine
from tests.enqueue.conn_kinds import CONN_KINDS
from tests.limits.workers import Holding

Sessions = async_sessionmaker[AsyncSession]

NEVER: dict[str, Any] = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


class Calls(Holding, rate=Rate(3, per=3600, name="calls")):
    """A worker with three starts in an hour."""


class Short(Worker, queue="limits", rate=Rate(2, per=0.3, name="short", burst=1)):
    async def process(self, job: Job) -> None: ...


class ByKey(Worker, name="named_rate.by_key", queue="limits", rate=Rate(2, per=3600, by="key")):
    async def process(self, job: Job) -> None: ...


async def test_jobs_and_other_code_share_permits(start: StartOban, client: Oban, add: Add) -> None:
    rate = client.rate("calls")
    assert await rate.available() == 3
    await rate.acquire(2)
    assert await rate.available() == 1
    await add(Calls.new(), Calls.new())
    await start(queues={"limits": 5}, **NEVER)
    await Holding.begin(1)
    assert await rate.available() == 0
    with pytest.raises(TimeoutError, match=r"not 1 permits of rate 'calls' within 0.05 s"):
        await rate.acquire(timeout=0.05)
    await rate.reset()
    await Holding.begin(2)
    assert await rate.available() == 2


async def test_acquire_waits_for_the_next_permit(client: Oban) -> None:
    rate = client.rate("short")
    began = time.monotonic()
    await rate.acquire(3, timeout=0)
    await rate.acquire(2)
    assert time.monotonic() - began >= 0.29


async def test_many_callers_get_no_more_than_the_rate(client: Oban) -> None:
    rate = client.rate("calls")
    results = await asyncio.gather(
        *(rate.acquire(timeout=0.5) for _ in range(10)), return_exceptions=True
    )
    assert sum(result is None for result in results) == 3


async def test_a_named_rate_counts_by_key(client: Oban) -> None:
    await client.rate("named_rate.by_key", key="a").acquire(2)
    assert await client.rate("named_rate.by_key", key="a").available() == 0
    assert await client.rate("named_rate.by_key", key="b").available() == 2


async def test_a_rate_uses_the_schema_of_its_instance(engine: AsyncEngine) -> None:
    assert await Oban(engine).rate("calls").available() == 3


async def test_invalid_values_are_refused(client: Oban) -> None:
    with pytest.raises(LookupError, match="no imported worker has a rate of the name 'nope'"):
        client.rate("nope")
    with pytest.raises(TypeError, match="leave key out"):
        client.rate("calls", key=1)
    with pytest.raises(TypeError, match="no key to count by"):
        client.rate("named_rate.by_key", key=[1])
    with pytest.raises(ValueError, match=r"at most allowed \+ burst, 3"):
        await client.rate("calls").acquire(4)


class TestInTheTransactionOfTheCaller:
    @pytest.mark.parametrize(
        "kind",
        [
            *("async session", "async scoped session", "session", "scoped session"),
            *("async connection", "connection"),
            *("psycopg.AsyncConnection", "psycopg.AsyncCursor"),
            *("psycopg.AsyncConnection-pipeline", "psycopg.Connection", "psycopg.Cursor"),
        ],
    )
    async def test_a_rollback_gives_permits_back(
        self, client: Oban, engine: AsyncEngine, postgres_dsn: str, prefix: str, kind: str
    ) -> None:
        rate = client.rate("calls")
        async with _transaction(engine, postgres_dsn, prefix, kind) as (conn, transaction):
            await rate.acquire(2, conn=conn)
            await transaction.rollback()
        assert await rate.available() == 3
        async with _transaction(engine, postgres_dsn, prefix, kind) as (conn, transaction):
            await rate.acquire(2, conn=conn)
            await transaction.commit()
        assert await rate.available() == 1

    async def test_a_rolled_back_savepoint_gives_permits_back(
        self, client: Oban, sessions: Sessions
    ) -> None:
        """Other code may take them then, and before the transaction ends."""
        rate = client.rate("calls")
        async with sessions.begin() as session:
            savepoint = await session.begin_nested()
            await rate.acquire(2, conn=session)
            await savepoint.rollback()
            await rate.acquire(3, timeout=10)
            assert await rate.available() == 0
        assert await rate.available() == 0

    async def test_no_other_transaction_takes_the_permits_before_the_commit(
        self, client: Oban, sessions: Sessions, start: StartOban, add: Add
    ) -> None:
        rate = client.rate("calls")
        await add(Calls.new(), Calls.new())
        async with sessions.begin() as session:
            await rate.acquire(2, conn=session)
            await start(queues={"limits": 5}, **NEVER)
            other = asyncio.create_task(rate.acquire(2, timeout=0.01))
            await until_blocking(session)
        with pytest.raises(TimeoutError, match="not 2 permits"):
            await other
        await Holding.begin(1)
        assert await rate.available() == 0

    async def test_acquire_waits_for_the_next_permit(
        self, client: Oban, sessions: Sessions
    ) -> None:
        """The wait ends by the database's clock, which goes on during the transaction."""
        rate = client.rate("short")
        await rate.acquire(3)
        async with sessions.begin() as session:
            began = time.monotonic()
            await rate.acquire(2, conn=session)
            assert time.monotonic() - began >= 0.2

    async def test_a_wait_holds_no_lock(self, client: Oban, postgres_dsn: str, prefix: str) -> None:
        rate = client.rate("calls")
        await rate.acquire(3)
        async with CONN_KINDS["psycopg.AsyncConnection"](postgres_dsn, prefix) as opened:
            await opened.run("CREATE TEMPORARY TABLE kept (id int) ON COMMIT DROP")
            with pytest.raises(TimeoutError, match="not 1 permits of rate 'calls'"):
                await rate.acquire(conn=opened.conn, timeout=0.05)
            assert await rate.available() == 0
            await opened.run("SELECT id FROM kept")

    async def test_a_timeout_keeps_the_transaction(self, client: Oban, sessions: Sessions) -> None:
        rate = client.rate("calls")
        await rate.acquire(3)
        async with sessions.begin() as session:
            session.add(Calls.new())
            with pytest.raises(TimeoutError, match="not 1 permits of rate 'calls'"):
                await rate.acquire(conn=session, timeout=0.05)
            # The wait holds no lock.
            assert await rate.available() == 0
        async with sessions() as session:
            assert len((await session.scalars(select(Job))).all()) == 1

    async def test_invalid_values_are_refused(
        self, client: Oban, engine: AsyncEngine, sessions: Sessions
    ) -> None:
        rate = client.rate("calls")
        with pytest.raises(TypeError, match="whose transaction takes the permits"):
            await rate.acquire(conn="x")  # type: ignore[arg-type]
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ")
            with pytest.raises(ValueError, match="that is repeatable read"):
                await rate.acquire(conn=connection)
        assert await rate.available() == 3


@asynccontextmanager
async def _transaction(engine: AsyncEngine, dsn: str, prefix: str, kind: str) -> AsyncIterator[Any]:
    """A `conn` and its transaction, which the test ends."""
    if kind in ("session", "scoped session", "connection"):
        sync = sync_engine(dsn, prefix)
        with sync.connect() as connection, connection.begin() as transaction:
            conns = {
                "session": Session(connection),
                "scoped session": scoped_session(sessionmaker(connection)),
            }
            yield conns.get(kind, connection), _Awaited(transaction)
        sync.dispose()
        return
    if kind.startswith("psycopg"):
        async with CONN_KINDS[kind](dsn, prefix) as opened:
            yield opened.conn, opened
        return
    async with engine.connect() as connection, connection.begin() as transaction:
        scoped = async_scoped_session(async_sessionmaker(connection), asyncio.current_task)
        conns = {"async session": AsyncSession(connection), "async scoped session": scoped}
        yield conns.get(kind, connection), transaction


class _Awaited:
    def __init__(self, transaction: RootTransaction) -> None:
        self._transaction = transaction

    async def commit(self) -> None:
        self._transaction.commit()

    async def rollback(self) -> None:
        self._transaction.rollback()
