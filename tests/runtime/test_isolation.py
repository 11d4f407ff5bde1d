"""A role whose default is not READ COMMITTED: everything works, without errors."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, JobState, Oban, Worker
from tests.databases import async_engine
from tests.listening import hear


class Counted(Worker, name="isolated.counted"):
    async def process(self, job: Job) -> None: ...


class Once(Worker, name="isolated.once", unique=True, queue="nobody"):
    async def process(self, job: Job) -> None: ...


@pytest.fixture(params=["psycopg", "asyncpg"])
def driver(request: pytest.FixtureRequest) -> str:
    driver: str = request.param
    return driver


@pytest.fixture(params=["serializable", "repeatable read"])
async def isolated(
    request: pytest.FixtureRequest, driver: str, postgres_dsn: str, prefix: str
) -> AsyncIterator[AsyncEngine]:
    level = request.param
    arguments = (
        {"options": f"-c default_transaction_isolation={level.replace(' ', chr(92) + ' ')}"}
        if driver == "psycopg"
        else {"server_settings": {"default_transaction_isolation": level}}
    )
    engine = async_engine(
        postgres_dsn, prefix, driver, connect_args=arguments, pool_size=20, max_overflow=0
    )
    yield engine
    await engine.dispose()


async def test_concurrent_enqueues_of_a_unique_job_insert_one(isolated: AsyncEngine) -> None:
    oban = Oban(isolated)
    for n in range(5):
        jobs = await asyncio.gather(*(oban.enqueue(Once.new({"n": n})) for _ in range(10)))
        assert len({job.id for job in jobs}) == 1
        assert sum(not job.conflict for job in jobs) == 1
        many = (oban.enqueue_many(Once.new({"n": n, "m": m}) for m in range(5)) for _ in range(4))
        assert len({job.id for jobs in await asyncio.gather(*many) for job in jobs}) == 5


async def test_nodes_of_one_queue_have_no_failures(isolated: AsyncEngine) -> None:
    options = {"queues": {"default": 10}, "poll_interval": 0.05}
    with hear(Oban, "service_failed") as failures:
        async with Oban(isolated, node="a", **options) as oban, Oban(isolated, node="b", **options):
            for _ in range(10):
                jobs = await oban.enqueue_many(Counted.new() for _ in range(40))
            done = await oban.wait_many(jobs, timeout=20)
            await oban.cancel_jobs(jobs)
    assert {job.state for job in done} == {JobState.COMPLETED}
    assert {job.attempt for job in done} == {1}
    assert failures.events == []
