"""A pool that is too small makes jobs wait: no attempt is spent, and the log and the doctor report
it.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban_sqla import Job, JobState, Worker
from oban_sqla.config import Config
from oban_sqla.doctor.examination import examine
from oban_sqla.doctor.finding import Finding
from oban_sqla.migrations import LATEST
from oban_sqla.runtime import executor, pool
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.executor import Executor
from oban_sqla.statements.acknowledge import Ack
from tests.attempts import Emitted
from tests.claimed import claimed
from tests.conftest import Add, StartOban, Tune
from tests.databases import async_engine
from tests.runtime.conftest import Rows, until

QUEUE = "pool.sessions"


@pytest.fixture
async def small(postgres_dsn: str, prefix: str) -> AsyncIterator[AsyncEngine]:
    """An engine whose pool has one connection, with a short timeout."""
    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.05}
    engine = async_engine(postgres_dsn, prefix, **options)
    yield engine
    await engine.dispose()


class Asks(Worker, name="pool.asks", queue=QUEUE):
    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))


class Wraps(Worker, name="pool.wraps"):
    async def process(self, job: Job, session: AsyncSession) -> None:
        try:
            await session.execute(text("SELECT 1"))
        except Exception as error:
            raise LookupError("no user") from error


class Flushes(Worker, name="pool.flushes"):
    async def process(self, job: Job, session: AsyncSession) -> None:
        session.add(Asks.new())
        await session.flush()


class OnlyAdds(Worker, name="pool.only_adds"):
    async def process(self, job: Job, session: AsyncSession) -> None:
        session.add(Asks.new())


class Nests(Worker, name="pool.nests"):
    async def process(self, job: Job, session: AsyncSession) -> None:
        async with session.begin_nested():
            await session.connection()


class InTime(Worker, name="pool.in_time", timeout=0.02):
    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))


class OnAnotherEngine(Worker, name="pool.another"):
    engine: AsyncEngine

    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        async with self.engine.connect():
            pass


class OfAnotherSession(Worker, name="pool.another_session"):
    engine: AsyncEngine

    async def process(self, job: Job, session: AsyncSession) -> None:
        async with AsyncSession(self.engine) as other:
            await other.execute(text("SELECT 1"))


async def execute(engine: AsyncEngine, worker: type[Worker], heard: Emitted) -> Ack:
    one = Executor(Database(engine, None), lambda *data: heard.append(data))
    ack = await one.execute(claimed(worker.new().worker), lambda: False)
    assert isinstance(ack, Ack)
    return ack


async def examined(engine: AsyncEngine, prefix: str) -> list[Finding]:
    database = Database(engine, prefix)
    return [one async for one in examine(database, Config.check(), latest=LATEST)]


class TestAttempt:
    @pytest.mark.parametrize("worker", [Asks, Wraps, Flushes, OnlyAdds, Nests, InTime])
    async def test_an_attempt_that_waits_for_a_connection_is_not_spent(
        self, worker: type[Worker], small: AsyncEngine
    ) -> None:
        heard: Emitted = []
        async with small.connect():
            ack = await execute(small, worker, heard)
        assert (ack.state, ack.spent, ack.error) == (JobState.SCHEDULED, False, None)
        assert ack.delay is not None
        assert [name for name, _ in heard] == ["job_start", "job_dropped", "job_unconnected"]

    async def test_an_attempt_without_a_server_is_not_spent(self) -> None:
        nowhere = async_engine("postgresql://localhost:1/nowhere", "public")
        ack = await execute(nowhere, Asks, [])
        assert (ack.state, ack.spent) == (JobState.SCHEDULED, False)
        await nowhere.dispose()

    @pytest.mark.parametrize("worker", [OnAnotherEngine, OfAnotherSession])
    async def test_an_attempt_that_waits_for_a_pool_of_its_own_is_spent(
        self, worker: Any, small: AsyncEngine, engine: AsyncEngine
    ) -> None:
        worker.engine = small
        async with small.connect():
            ack = await execute(engine, worker, [])
        assert (ack.state, ack.spent) == (JobState.RETRYABLE, True)
        assert "QueuePool limit of size 1" in str(ack.error)


class TestLimit:
    def test_the_limit_of_a_pool_is_its_size_with_its_overflow(self) -> None:
        for options, limit in [
            ({}, 15),
            ({"pool_size": 20, "max_overflow": 0}, 20),
            ({"pool_size": 3, "max_overflow": -1}, None),
            ({"pool_size": 0}, None),
            ({"poolclass": NullPool}, None),
        ]:
            engine = async_engine("postgresql://localhost/b", "public", **options)
            assert pool.capacity(engine) == limit, options

    def test_the_needed_limit_counts_the_queues_of_workers_with_a_session(self) -> None:
        assert pool.needed({"pool.nobody": 50}) == 5
        assert pool.needed({"pool.nobody": 50, QUEUE: 20}) == 25


class TestSmallPool:
    async def test_is_named_at_the_start_and_by_the_doctor(
        self,
        start: StartOban,
        engine: AsyncEngine,
        prefix: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        await start(queues={QUEUE: 20}, node="n1")
        (warning,) = [record for record in caplog.records if "pool_size" in record.message]
        assert warning.levelname == "WARNING"
        assert "opens at most 15 connections" in warning.message
        assert "make the engine with pool_size=25" in warning.message
        found = await examined(engine, prefix)
        (finding,) = [one for one in found if one.check == "pools"]
        assert (finding.level, "n1" in finding.text) == ("problem", True)
        assert "may use 25 at once" in finding.text

    async def test_a_pool_that_is_large_enough_is_not_reported(
        self,
        start: StartOban,
        engine: AsyncEngine,
        prefix: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        await start(queues={QUEUE: 10, "pool.nobody": 100}, node="n1")
        assert "pool_size" not in caplog.text
        found = await examined(engine, prefix)
        assert [one.level for one in found if one.check == "pools"] == ["ok"]


class Holds(Worker, name="pool.holds", queue=QUEUE, max_attempts=1):
    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.execute(text("SELECT pg_sleep(0.2)"))


async def test_more_jobs_than_connections_end_at_their_first_attempt(
    start: StartOban,
    postgres_dsn: str,
    prefix: str,
    add: Add,
    rows: Rows,
    expect_errors: None,
    tune: Tune,
) -> None:
    tune(executor, RECONNECT=(0.05, 0.1))
    # The node itself uses up to five connections.
    options: dict[str, Any] = {"pool_size": 7, "max_overflow": 0, "pool_timeout": 0.1}
    engine = async_engine(postgres_dsn, prefix, **options)
    oban = await start(engine, queues={QUEUE: 12}, notify="poll", poll_interval=0.1)
    await add(*(Holds.new() for _ in range(12)))

    async def all_completed() -> bool:
        return all(state is JobState.COMPLETED for state, _ in await rows())

    await until(all_completed)
    assert await rows() == [(JobState.COMPLETED, 1)] * 12
    await oban.stop()
    await engine.dispose()
