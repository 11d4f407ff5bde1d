"""An instance that is used in the event loop of another thread, while its node runs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from oban_sqla import Job, JobState, Oban, Worker, instances
from tests.databases import async_engine
from tests.listening import hear


class Quiet(Worker, name="loops.quiet"):
    async def process(self, job: Job) -> None: ...


class Elsewhere(Worker, name="loops.elsewhere"):
    """A plain function that uses the instance in an event loop of its own."""

    def process(self, job: Job) -> None:
        asyncio.run(use(job.args["how"], job.id))


async def use(how: str, id: int) -> None:
    oban: Any = instances.get("Oban")
    match how:
        case "enqueue":
            await Quiet.enqueue()
        case "enqueue many":
            await oban.enqueue_many(Quiet.new() for _ in range(3))
        case "cancel":
            await oban.cancel_jobs(await Quiet.enqueue(schedule_in=60))
        case "update":
            await oban.update_jobs(await Quiet.enqueue(schedule_in=60), {"priority": 3})
        case "pause":
            await oban.pause_queue("other")
        case "wait":
            await oban.wait(await Quiet.enqueue(), timeout=5)


@pytest.fixture(params=["psycopg", "asyncpg"])
async def oban(
    request: pytest.FixtureRequest, postgres_dsn: str, prefix: str
) -> AsyncIterator[Oban]:
    # A pool of one connection, so that the next user would get a broken one.
    engine = async_engine(postgres_dsn, prefix, request.param)
    async with Oban(engine, queues={"default": 5, "other": 1}, node="n") as oban:
        yield oban
    await engine.dispose()


async def test_an_instance_can_be_used_in_another_event_loop(oban: Oban) -> None:
    ways = ("enqueue", "enqueue many", "cancel", "update", "pause", "wait")
    with hear(oban, "service_failed") as failures:
        for how in ways * 2:
            job = await oban.enqueue(Elsewhere.new({"how": how}))
            done = await oban.wait(job, timeout=10)
            assert done.state is JobState.COMPLETED, (how, done.errors)
            # The node goes on in its own loop.
            assert (await oban.wait(await Quiet.enqueue(), timeout=5)).state is JobState.COMPLETED
    assert failures.events == []


async def test_several_threads_can_use_an_instance_at_once(oban: Oban) -> None:
    jobs = await oban.enqueue_many(Elsewhere.new({"how": "enqueue many"}) for _ in range(12))
    done = await oban.wait_many(jobs, timeout=10)
    assert {job.state for job in done} == {JobState.COMPLETED}


async def test_another_event_loop_gets_a_psycopg_connection(postgres_dsn: str, prefix: str) -> None:
    engine = async_engine(postgres_dsn, prefix)
    async with Oban(engine, queues={"default": 1}) as oban:

        async def elsewhere() -> object:
            async with oban.connection() as connection:
                return await (await connection.execute("SELECT 1")).fetchone()

        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == (1,)
        assert (await oban.wait(await Quiet.enqueue(), timeout=5)).state is JobState.COMPLETED
    await engine.dispose()


def test_event_loops_may_use_an_instance_in_turn(postgres_dsn: str, prefix: str) -> None:
    """The pool moves to the new loop, since the old one is closed."""
    engine = async_engine(postgres_dsn, prefix, "asyncpg")
    oban = Oban(engine)

    async def enqueue() -> bool:
        await oban.enqueue(Quiet.new())
        home = oban._database.home.is_running()
        await engine.dispose()
        return home

    assert [asyncio.run(enqueue()) for _ in range(2)] == [True, True]
