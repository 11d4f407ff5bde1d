"""The locks of chains, and chains one of whose waiting jobs another transaction has locked."""

import asyncio

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban_sqla import Chain, Job, JobState, Oban, Worker
from oban_sqla.workflows import keeper
from tests.blocking import pid_of, until_blocked
from tests.conftest import StartOban, Tune
from tests.databases import async_engine
from tests.workflows.conftest import Sessions, jobs_of


class Plain(Worker, name="chain_locks.plain"):
    async def process(self, job: Job) -> None: ...


class Entry(Worker, name="chain_locks.entry", chain="account"):
    async def process(self, job: Job) -> None: ...


class InSession(Worker, name="chain_locks.in_session", chain="account"):
    """Takes a session, and uses it."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.connection()


class Ending(
    Worker,
    name="chain_locks.ending",
    chain=Chain("account", on_discard="cancel"),
    max_attempts=1,
):
    """Fails."""

    async def process(self, job: Job) -> None:
        raise ValueError("no luck")


@pytest.fixture(autouse=True)
def without_repairs(tune: Tune) -> None:
    """No keeper repairs a chain during a test."""
    tune(keeper, INTERVAL=60.0, LONGEST_INTERVAL=60.0, NEWS_DELAY=60.0)


@pytest.mark.parametrize("worker", [Entry, InSession])
async def test_a_locked_job_delays_its_own_chain_only(
    start: StartOban, sessions: Sessions, worker: type[Worker]
) -> None:
    """The outcomes of all other jobs are written, and after the unlock, the node goes on."""
    first, locked, last = (worker.new({"account": 1}) for _ in range(3))
    others = [*(worker.new({"account": 2}) for _ in range(3)), Plain.new()]
    async with sessions.begin() as session:
        session.add_all([first, locked, last, *others])
    async with sessions.begin() as session:
        await session.execute(select(Job.id).where(Job.id == locked.id).with_for_update())
        oban = await start(queues={"default": 10})
        await oban.wait_many([first, *others], timeout=20)
        assert (await oban.get_one_job(locked.id)).state is JobState.SUSPENDED
    await oban.wait_many([locked, last], timeout=20)


@pytest.mark.usefixtures("expect_errors")
async def test_a_locked_job_is_cancelled_after_the_others_of_its_chain(
    start: StartOban, sessions: Sessions
) -> None:
    first, locked, last = (Ending.new({"account": 1}) for _ in range(3))
    async with sessions.begin() as session:
        session.add_all([first, locked, last])
    async with sessions.begin() as session:
        await session.execute(select(Job.id).where(Job.id == locked.id).with_for_update())
        oban = await start(queues={"default": 10})
        await oban.wait(last, timeout=20)
    await oban.wait(locked, timeout=20)
    states = [job.state.value for job in await jobs_of(sessions)]
    assert states == ["discarded", "cancelled", "cancelled"]


async def test_two_calls_for_one_chain_do_not_deadlock(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """One call has locked the second job, while the other one ends the first job."""
    oban = Oban(engine)
    first, second, third = (Entry.new({"account": 1}) for _ in range(3))
    async with sessions.begin() as session:
        session.add_all([first, second, third])
    async with sessions() as one, sessions() as other:
        pid = await pid_of(other)
        await other.execute(select(Job.id).where(Job.id == second.id).with_for_update())
        await oban.cancel_jobs(first, conn=one)
        waiting = asyncio.create_task(oban.cancel_jobs(second, conn=other))
        await until_blocked(engine, pid)
        await one.commit()
        await waiting
        await other.commit()
    states = [job.state.value for job in await jobs_of(sessions)]
    assert states == ["cancelled", "cancelled", "available"]


async def test_a_release_waits_for_a_transaction_that_enqueues(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """The trigger and the release lock the same, so that the new job is not overlooked."""
    oban, first = Oban(engine), Entry.new({"account": 1})
    async with sessions.begin() as session:
        session.add(first)
    async with sessions() as one, sessions() as other:
        one.add(Entry.new({"account": 1}))
        await one.flush()
        pid = await pid_of(other)
        waiting = asyncio.create_task(oban.cancel_jobs(first, conn=other))
        await until_blocked(engine, pid)
        await one.commit()
        await waiting
        await other.commit()
    states = [job.state.value for job in await jobs_of(sessions)]
    assert states == ["cancelled", "available"]


async def test_the_chains_of_two_schemas_have_different_locks(
    sessions: Sessions, postgres_dsn: str, new_schema: str
) -> None:
    elsewhere = async_engine(postgres_dsn, new_schema)
    async with sessions() as one, AsyncSession(elsewhere) as other:
        one.add(Entry.new({"account": 1}))
        await one.flush()
        other.add(Entry.new({"account": 1}))
        await other.commit()
        await one.commit()
    await elsewhere.dispose()
