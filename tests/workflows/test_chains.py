"""Chains: the jobs of a key run one after the other, in the order of their commits."""

import asyncio
from typing import Any

import psycopg
import pytest
from sqlalchemy import delete, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban_sqla import Chain, Job, JobState, Oban, Snooze, Worker, job
from tests.blocking import pid_of, until_blocked
from tests.conftest import StartOban
from tests.listening import hear
from tests.workflows.conftest import Sessions, jobs_of

pytestmark = pytest.mark.usefixtures("expect_errors")  # some jobs are discarded

ran: list[tuple[int, int]] = []
running: dict[int, int] = {}


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()
    running.clear()


class Entry(Worker, name="chains.entry", chain="account", max_attempts=3):
    """Notes the account and the number, and checks that no other job of the account runs."""

    async def process(self, job: Job) -> object:
        account, n = job.args["account"], job.args["n"]
        running[account] = running.get(account, 0) + 1
        assert running[account] == 1
        await asyncio.sleep(0)
        running[account] -= 1
        if job.args.get("snooze") and not job.meta.get("snoozed"):
            return Snooze(0.1)
        if job.args.get("fail", 0) >= job.attempt:
            raise ValueError("no luck")
        ran.append((account, n))
        return None

    def backoff(self, job: Job) -> float:
        return 0.1


class Held(
    Entry, name="chains.held", chain=Chain("account", on_discard="hold"), max_attempts=1
): ...


class Ending(
    Entry, name="chains.ending", chain=Chain("account", on_discard="cancel"), max_attempts=1
): ...


async def test_jobs_run_one_after_the_other_across_retries_and_snoozes(
    start: StartOban, sessions: Sessions
) -> None:
    jobs = [
        Entry.new({"account": account, "n": n, "fail": n % 3 == 1, "snooze": n % 3 == 2})
        for n in range(6)
        for account in (1, 2, 3)
    ]
    async with sessions.begin() as session:
        session.add_all(jobs)
    states = {stored.id: stored.state for stored in await jobs_of(sessions)}
    assert [states[job.id] for job in jobs] == [JobState.AVAILABLE] * 3 + [JobState.SUSPENDED] * 15
    first = await start(queues={"default": 10}, name="one", node="one")
    await start(queues={"default": 10}, name="two", node="two")
    await first.wait_many(jobs, timeout=30)
    for account in (1, 2, 3):
        assert [n for one, n in ran if one == account] == [*range(6)]


async def test_jobs_run_in_the_order_of_their_commits(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """The second transaction waits for the first one, whose later job comes before its own."""
    async with sessions() as one, sessions() as two:
        one.add(Entry.new({"account": 1, "n": 1}))
        await one.flush()
        pid = await pid_of(two)
        two.add(Entry.new({"account": 1, "n": 3}))
        second = asyncio.create_task(two.commit())
        await until_blocked(engine, pid)
        assert not second.done()
        one.add(Entry.new({"account": 1, "n": 2}))
        await one.commit()
        await second
    stored = await jobs_of(sessions)
    assert [one.args["n"] for one in stored] == [1, 2, 3]
    assert [one.state.value for one in stored] == ["available", "suspended", "suspended"]


async def test_a_rolled_back_job_blocks_no_other_job(start: StartOban, sessions: Sessions) -> None:
    async with sessions() as session:
        session.add(Entry.new({"account": 1, "n": 0}))
        await session.flush()
        await session.rollback()
    oban = await start(queues={"default": 10})
    done = await oban.enqueue(Entry.new({"account": 1, "n": 1}))
    assert (await oban.wait(done, timeout=20)).state is JobState.COMPLETED


async def test_a_failed_job_can_hold_its_chain(start: StartOban, sessions: Sessions) -> None:
    oban = await start(queues={"default": 10})
    bad, good = Held.new({"account": 1, "n": 1, "fail": 1}), Held.new({"account": 1, "n": 2})
    await oban.enqueue_many(bad, good)
    assert (await oban.wait(bad, timeout=20)).state is JobState.DISCARDED
    (blocked,) = await oban.blocked_chains()
    assert (blocked.job_id, blocked.waiting) == (bad.id, 1)
    assert blocked.chain == "chains.held:[1]"
    await oban.delete_jobs(bad)
    assert (await oban.wait(good, timeout=20)).state is JobState.COMPLETED
    assert await oban.blocked_chains() == []


async def test_a_retried_job_comes_first(start: StartOban, sessions: Sessions) -> None:
    oban = await start(queues={"default": 10})
    bad, good = Held.new({"account": 1, "n": 1, "fail": 1}), Held.new({"account": 1, "n": 2})
    await oban.enqueue_many(bad, good)
    await oban.wait(bad, timeout=20)
    await oban.retry_jobs(bad)
    await oban.wait(good, timeout=20)
    assert ran == [(1, 1), (1, 2)]


async def test_a_failed_job_can_cancel_its_chain(start: StartOban) -> None:
    oban = await start(queues={"default": 10})
    jobs = [Ending.new({"account": 1, "n": n, "fail": n == 0}) for n in range(3)]
    await oban.enqueue_many(jobs)
    done = await oban.wait_many(jobs, timeout=20)
    assert [one.state.value for one in done] == ["discarded", "cancelled", "cancelled"]
    again = await oban.enqueue(Ending.new({"account": 1, "n": 3}))
    assert (await oban.wait(again, timeout=20)).state is JobState.COMPLETED


async def test_the_leader_repairs_a_chain(start: StartOban, sessions: Sessions) -> None:
    first, second = (Entry.new({"account": 1, "n": n}) for n in range(2))
    async with sessions.begin() as session:
        session.add_all([first, second])
    async with sessions.begin() as session:
        await session.execute(delete(Job).where(Job.id == first.id))
    with hear(Oban, "job_stop") as stops:
        await start(queues={"default": 10})
        await stops.wait()
    assert ran == [(1, 1)]


async def test_a_chain_may_have_all_jobs_of_a_worker(sessions: Sessions) -> None:
    @job(name="chains.sync", chain=["tenant", "region"])
    def sync(tenant: int, region: str) -> None: ...

    @job(name="chains.all", chain=True)
    def everything() -> None: ...

    async with sessions.begin() as session:
        jobs = [sync.new(1, "eu"), sync.new(1, "us"), sync.new(1, "eu")]
        jobs += [everything.new(), everything.new()]
        session.add_all(jobs)
    stored = {one.id: one.state.value for one in await jobs_of(sessions)}
    states = [stored[one.id] for one in jobs]
    assert states == ["available", "available", "suspended", "available", "suspended"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (3, TypeError, "chain must be a Chain"),
        ([3], TypeError, "by must be names"),
    ],
)
def test_invalid_chains_are_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):

        @job(name="chains.wrong", chain=given)
        def wrong() -> None: ...


def test_a_job_without_the_argument_of_its_chain_is_refused() -> None:
    with pytest.raises(ValueError, match="chain='account' needs that argument"):
        Entry.new({"n": 1})
    with pytest.raises(ValueError, match="on_discard must be one of"):
        Chain("x", on_discard="explode")  # type: ignore[arg-type]


async def test_plain_jobs_are_in_no_chain(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        session.add_all([Job("w"), Job("w")])
        await session.flush()
        found = (await session.scalars(select(Job))).all()
    assert [one.meta for one in found] == [{}, {}]


async def test_opposite_orders_do_not_deadlock(engine: AsyncEngine, prefix: str) -> None:
    client = Oban(engine, prefix=prefix)
    accounts = [*range(40)]
    given = [accounts, accounts[::-1]] * 4

    async def enqueue(order: list[int], round: int) -> None:
        await client.enqueue_many(Entry.new({"account": account, "n": round}) for account in order)

    for round in range(10):
        await asyncio.gather(*(enqueue(order, round) for order in given))


async def test_each_job_of_several_chains_knows_its_id(sessions: Sessions) -> None:
    jobs = [Entry.new({"account": n % 3, "n": n}) for n in range(9)]
    async with sessions.begin() as session:
        session.add_all(jobs)
    stored = {job.id: job.args for job in await jobs_of(sessions)}
    assert {job.id: job.args for job in jobs} == stored
    for account in range(3):
        ids = [job.id for job in jobs if job.args["account"] == account]
        assert ids == sorted(ids)


async def test_jobs_that_share_a_commit_know_their_ids(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    client = Oban(engine, prefix=prefix)
    jobs = [Entry.new({"account": -n, "n": n}) for n in range(50)]
    await asyncio.gather(*map(client.enqueue, jobs))
    assert {job.id: job.args for job in jobs} == {
        job.id: job.args for job in await jobs_of(sessions)
    }


async def test_opposite_orders_in_several_flushes(sessions: Sessions) -> None:
    """PostgreSQL ends one of the transactions with an error that says so; the other one commits."""

    async def enqueue(accounts: tuple[int, int], n: int) -> None:
        async with sessions.begin() as session:
            for account in accounts:
                session.add(Entry.new({"account": account, "n": n}))
                await session.flush()
                if account == accounts[0]:
                    await both.wait()

    both = asyncio.Barrier(2)
    orders = [(1, 2), (2, 1)]
    results = await asyncio.gather(*map(enqueue, orders, (1, 2)), return_exceptions=True)
    (lost,) = [n for n, result in enumerate(results) if result is not None]
    error = results[lost]
    assert isinstance(error, OperationalError)
    assert isinstance(error.orig, psycopg.errors.DeadlockDetected)
    assert len(await jobs_of(sessions)) == 2
    # Again, as after a serialization failure.
    both = asyncio.Barrier(1)
    await enqueue(orders[lost], lost + 1)
    stored = await jobs_of(sessions)
    assert sorted((one.args["account"], one.args["n"]) for one in stored) == [
        (account, n) for account in (1, 2) for n in (1, 2)
    ]
    assert [one.state.value for one in stored] == ["available"] * 2 + ["suspended"] * 2


class Crossing(Worker, name="chains.crossing", chain="account", max_attempts=1):
    """Enqueues a job of the other chain in its own session, while that chain does the same."""

    meeting = asyncio.Barrier(2)

    async def process(self, job: Job, session: AsyncSession) -> None:
        account, first = job.args["account"], not job.args.get("last")
        ran.append((account, int(first)))
        if first:
            session.add(Crossing.new({"account": 3 - account, "last": True}))
            await session.flush()
            if ran.count((account, 1)) == 1:
                await Crossing.meeting.wait()


async def test_workers_that_deadlock_are_retried(start: StartOban, sessions: Sessions) -> None:
    """The transaction that PostgreSQL ends is made again, in the same attempt."""
    Crossing.meeting = asyncio.Barrier(2)
    oban = await start(queues={"default": 10})
    with hear(oban, "ack_stop") as acks:
        await oban.enqueue_many(Crossing.new({"account": account}) for account in (1, 2))
        await acks.counted(4)
    stored = await jobs_of(sessions)
    assert [(one.state, one.attempt) for one in stored] == [(JobState.COMPLETED, 1)] * 4


async def test_a_chain_goes_on_behind_a_discarded_or_cancelled_job(
    start: StartOban, sessions: Sessions
) -> None:
    given = [{"fail": 3}, {}, {}, {}]
    jobs = [Entry.new({"account": 1, "n": n, **args}) for n, args in enumerate(given)]
    async with sessions.begin() as session:
        session.add_all(jobs)
    oban = Oban(sessions.kw["bind"])
    assert await oban.cancel_jobs(jobs[1]) == 1
    running = await start(queues={"default": 10}, name="running", node="running")
    done = await running.wait_many(jobs, timeout=20)
    states = [one.state.value for one in done]
    assert states == ["discarded", "cancelled", "completed", "completed"]
    assert ran == [(1, 2), (1, 3)]


async def test_the_first_job_of_a_chain_is_cancelled(sessions: Sessions) -> None:
    """The next one is available in the same transaction."""
    first, second = (Entry.new({"account": 1, "n": n}) for n in range(2))
    async with sessions.begin() as session:
        session.add_all([first, second])
        await session.flush()
        assert await Oban(sessions.kw["bind"]).cancel_jobs(first, conn=session) == 1
    states = [one.state.value for one in await jobs_of(sessions)]
    assert states == ["cancelled", "available"]
