"""Waiting for jobs: the nodes that run them announce the end, or a query finds it."""

import asyncio
import gc
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Cancel, Job, JobState, Oban, Record, Worker
from tests.conftest import StartOban, Tune
from tests.databases import async_engine
from tests.listening import hear
from tests.runtime.conftest import until
from tests.services import services

NEVER: dict[str, Any] = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


class Answer(Worker, name="waiter.answer", max_attempts=1):
    async def process(self, job: Job) -> Any:
        match job.args.get("do"):
            case "fail":
                raise ValueError("boom")
            case "cancel":
                return Cancel("enough")
            case "wait":
                await released.wait()
        return Record(job.args.get("value"))


released: asyncio.Event


@pytest.fixture(autouse=True)
async def held() -> None:
    global released
    released = asyncio.Event()


@pytest.fixture
def client(engine: AsyncEngine, prefix: str) -> Oban:
    """An instance that runs no jobs, and makes no queries by itself."""
    return Oban(engine, prefix=prefix, **NEVER)


@pytest.fixture
def no_queries(tune: Tune) -> None:
    tune("oban_sqla.runtime.outcome_watch", SOON=())


def listening(oban: Oban) -> bool:
    return any(watch._notifier.listening for watch in oban._waiter._watches.values())


async def test_wait_returns_a_job_that_another_node_ran(
    client: Oban, start: StartOban, no_queries: None
) -> None:
    node = await start(queues={"default": 5}, **NEVER)
    await until(lambda: services(node).notifier.listening)
    with hear(node, "job_start") as starts:
        job = await client.enqueue(Answer.new({"do": "wait", "value": 42}))
        await starts.wait()
    waiting = asyncio.create_task(client.wait(job))
    # The waiter and the node must know of each other. No query finds the job.
    await until(lambda: job.id in services(node).outcome_announcer._until)
    await until(lambda: listening(client))
    assert not waiting.done()
    released.set()
    done = await asyncio.wait_for(waiting, 20)
    assert (done.state, done.recorded) == (JobState.COMPLETED, 42)
    assert not client._waiter._watches  # without waiters, nothing listens


async def test_wait_returns_a_finished_job(client: Oban, start: StartOban) -> None:
    node = await start(queues={"default": 5})
    with hear(node, "ack_stop") as acks:
        job = await client.enqueue(Answer.new({"value": 1}))
        await acks.counted(1)
    assert (await client.wait(job.id)).recorded == 1


async def test_a_returned_job_has_its_errors(
    client: Oban, start: StartOban, expect_errors: None
) -> None:
    await start(queues={"default": 5})
    jobs = await client.enqueue_many(Answer.new({"do": do}) for do in ("fail", "cancel"))
    failed, cancelled = await client.wait_many(jobs, timeout=20)
    assert (failed.state, cancelled.state) == (JobState.DISCARDED, JobState.CANCELLED)
    assert "ValueError: boom" in failed.errors[0]["error"]
    assert cancelled.errors[0]["error"] == "enough"


async def test_wait_many_returns_jobs_in_the_given_order(client: Oban, start: StartOban) -> None:
    jobs = await client.enqueue_many(Answer.new({"value": n}) for n in range(700))
    waiting = asyncio.create_task(client.wait_many(reversed(jobs), timeout=20))
    await start(queues={"default": 50})
    assert [done.recorded for done in await waiting] == list(reversed(range(700)))


@pytest.mark.parametrize("notify", ["listen", "poll"])
async def test_an_unannounced_outcome_is_found(
    engine: AsyncEngine, prefix: str, notify: Any, no_queries: None
) -> None:
    oban = Oban(engine, prefix=prefix, notify=notify, poll_interval=0.02, fallback_interval=0.02)
    job = await oban.enqueue(Answer.new(schedule_in=60))
    waiting = asyncio.create_task(oban.wait(job))
    await oban.cancel_jobs(job)
    assert (await asyncio.wait_for(waiting, 20)).state is JobState.CANCELLED


def test_event_loops_may_wait_in_turn(
    postgres_dsn: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = async_engine(postgres_dsn, prefix, poolclass=NullPool)
    oban = Oban(engine, prefix=prefix, queues={"default": 5}, **NEVER)

    async def wait() -> None:
        global released
        released = asyncio.Event()
        async with oban:
            # Both wait for an outcome that only a notification can announce.
            jobs = await oban.enqueue_many(Answer.new({"do": "wait"}) for _ in range(2))
            waiting = [asyncio.create_task(oban.wait(job, timeout=20)) for job in jobs]
            await until(lambda: listening(oban))
            released.set()
            await asyncio.gather(*waiting)

    for _ in range(2):
        asyncio.run(wait())
    gc.collect()
    # asyncio reports a task that ended with an error when the task is garbage-collected.
    assert not caplog.records


class TestErrors:
    async def test_a_wait_beyond_its_timeout_raises(self, client: Oban) -> None:
        job = await client.enqueue(Answer.new())
        with pytest.raises(TimeoutError, match=f"job {job.id} was not finished within 0.05 s"):
            await client.wait(job, timeout=0.05)
        with pytest.raises(TimeoutError, match="2 jobs were not all finished within"):
            await client.wait_many([job, await client.enqueue(Answer.new())], timeout=0.05)
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            await client.wait(job, timeout=timedelta(milliseconds=50))

    async def test_an_invalid_timeout_is_refused(self, client: Oban) -> None:
        job = await client.enqueue(Answer.new())
        with pytest.raises(TypeError, match="timeout must be a timedelta or seconds, not 'soon'"):
            await client.wait(job, timeout="soon")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout must not be negative, got -1"):
            await client.wait(job, timeout=-1)

    async def test_a_missing_job_raises(self, client: Oban) -> None:
        with pytest.raises(LookupError, match="there is no job 4711"):
            await client.wait(4711)
        with pytest.raises(ValueError, match="has no id"):
            await client.wait(Answer.new())

    async def test_a_job_deleted_during_the_wait_raises(
        self, engine: AsyncEngine, prefix: str
    ) -> None:
        oban = Oban(engine, prefix=prefix, fallback_interval=0.02, poll_interval=0.02)
        job = await oban.enqueue(Answer.new())
        waiting = asyncio.create_task(oban.wait(job))
        await until(lambda: bool(oban._waiter._watches))
        await oban.delete_jobs(job)
        with pytest.raises(LookupError, match=f"there is no job {job.id}"):
            await asyncio.wait_for(waiting, 20)

    async def test_a_wait_for_no_jobs_returns_at_once(self, client: Oban) -> None:
        assert await client.wait_many([]) == []
