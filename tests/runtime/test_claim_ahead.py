"""Claiming ahead: how many jobs are held, for how long, and when they go back."""

import asyncio
import time
from collections import Counter

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban, job
from oban_sqla.runtime.claim_ahead import ClaimAhead
from oban_sqla.runtime.producer import Producer
from tests.conftest import StartOban, Tune
from tests.listening import hear
from tests.runtime.conftest import Rows
from tests.runtime.workers import Held, Quick
from tests.services import paused_in_claims, services

Sessions = async_sessionmaker[AsyncSession]

S = JobState
NEVER = {"poll_interval": 3600.0, "fallback_interval": 3600.0, "leadership": False}


async def add(sessions: Sessions, *jobs: Job) -> list[int]:
    async with sessions.begin() as session:
        session.add_all(jobs)
    return [job.id for job in jobs]


def of(oban: Oban, queue: str = "default") -> Producer:
    return services(oban).producers[queue]


class TestAllowance:
    def ended(self, count: int, *, took: float = 0.0, ago: float = 0.0) -> ClaimAhead:
        ahead = ClaimAhead(window=1.0)
        ahead.claim_ended(full=True)
        now = time.monotonic() - ago
        for _ in range(count):
            ahead.job_ended(now - took, now)
        return ahead

    def test_the_allowance_is_the_number_of_jobs_that_ended_in_the_window(self) -> None:
        assert self.ended(7).allowance == 7

    def test_jobs_that_ended_before_the_window_do_not_count(self) -> None:
        assert self.ended(7, ago=1.1).allowance == 0

    def test_long_jobs_do_not_count(self) -> None:
        assert self.ended(7, took=1.1).allowance == 0

    def test_the_allowance_is_none_unless_the_last_claim_was_full(self) -> None:
        ahead = self.ended(7)
        ahead.claim_ended(full=False)
        assert ahead.allowance == 0
        ahead.claim_ended(full=True)
        assert ahead.allowance == 7

    def test_a_window_of_0_turns_the_claim_ahead_off(self) -> None:
        ahead = ClaimAhead(window=0.0)
        ahead.claim_ended(full=True)
        now = time.monotonic()
        ahead.job_ended(now, now)
        assert ahead.allowance == 0

    def test_the_allowance_is_bounded(self) -> None:
        assert self.ended(5000).allowance == 1000


@pytest.fixture
async def holding(start: StartOban, sessions: Sessions, tune: Tune) -> tuple[Oban, list[int]]:
    """An instance that runs two jobs, which don't end, and holds three more; and the five ids."""
    tune(ClaimAhead, allowance=3, longest_hold=3600.0)
    ids = await add(sessions, *(Held.new() for _ in range(5)))
    oban = await start(queues={"default": 2}, **NEVER)
    await Held.begun()
    await Held.begun()
    assert of(oban).held == ids[2:]
    return oban, ids


HELD = [(S.EXECUTING, 1)] * 5
RETURNED = [(S.EXECUTING, 1)] * 2 + [(S.AVAILABLE, 0)] * 3


class TestHeldJobs:
    async def test_start_as_others_end_and_the_limit_is_kept(
        self, start: StartOban, sessions: Sessions, rows: Rows
    ) -> None:
        running = most = 0

        @job(name="counts_who_runs")
        async def count() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

        await add(sessions, *(count.new() for _ in range(500)))
        with hear(Oban, "claim_stop") as claims, hear(Oban, "ack_stop") as acks:
            await start(queues={"default": 5}, **NEVER)
            await acks.counted(500)
        assert most == 5
        assert max(claim.count for claim in claims.events) > 5
        assert await rows() == [(S.COMPLETED, 1)] * 500

    async def test_go_back_at_a_pause(self, holding: tuple[Oban, list[int]], rows: Rows) -> None:
        oban, ids = holding
        assert await rows() == HELD
        with hear(oban, "give_back_stop") as returns:
            await oban.pause_queue("default")
            await returns.wait()
        assert [event.ids for event in returns.events] == [tuple(ids[2:])]
        assert await rows() == RETURNED

    async def test_go_back_at_a_scale_down(
        self, holding: tuple[Oban, list[int]], rows: Rows, tune: Tune
    ) -> None:
        oban, _ = holding
        tune(ClaimAhead, allowance=0)
        with hear(oban, "give_back_stop") as returns:
            await oban.scale_queue(queue="default", limit=1)
            await returns.wait()
        assert await rows() == RETURNED

    async def test_go_back_at_a_stop(self, holding: tuple[Oban, list[int]], rows: Rows) -> None:
        oban, _ = holding
        with hear(oban, "give_back_stop") as returns:
            stop = asyncio.create_task(oban.stop())
            await returns.wait()
            assert await rows() == RETURNED
            Held.release()
            await stop
        assert await rows() == [(S.COMPLETED, 1)] * 2 + [(S.AVAILABLE, 0)] * 3

    async def test_go_back_when_their_turn_does_not_come(
        self, holding: tuple[Oban, list[int]], rows: Rows, tune: Tune
    ) -> None:
        oban, _ = holding
        tune(ClaimAhead, allowance=0)
        tune(of(oban)._held, _longest=0.0)
        with hear(oban, "give_back_stop") as returns:
            of(oban).wake()
            await returns.wait()
        assert await rows() == RETURNED

    async def test_a_cancelled_held_job_never_starts(
        self, holding: tuple[Oban, list[int]], rows: Rows
    ) -> None:
        oban, ids = holding
        with hear(oban, "give_back_stop") as returns, hear(oban, "ack_stop") as acks:
            await oban.cancel_jobs(ids[3])
            await returns.wait()
            Held.release()
            await acks.counted(4)
        done = (S.COMPLETED, 1)
        assert await rows() == [done, done, done, (S.CANCELLED, 1), done]

    async def test_a_cancelled_held_job_is_found_without_notifications(
        self, holding: tuple[Oban, list[int]], sessions: Sessions, rows: Rows
    ) -> None:
        oban, ids = holding
        mark = {"cancel_attempted_at": "2026-11-23T11:00:00"}
        async with sessions.begin() as session:
            await session.execute(update(Job).where(Job.id == ids[3]).values(meta=mark))
        with hear(oban, "give_back_stop") as returns:
            await services(oban).orders.run_once()
            await returns.wait()
        assert (await rows())[3] == (S.CANCELLED, 1)

    async def test_a_held_job_whose_row_is_locked_goes_back_later(
        self,
        holding: tuple[Oban, list[int]],
        engine: AsyncEngine,
        rows: Rows,
    ) -> None:
        oban, ids = holding
        with hear(oban, "give_back_stop") as returns:
            async with engine.connect() as other:
                await other.execute(select(Job.id).where(Job.id == ids[3]).with_for_update())
                await oban.pause_queue("default")
                await returns.wait()
                assert returns.events[0].ids == (ids[2], ids[4])
                await other.rollback()
            of(oban).wake()
            await returns.wait(2)
        assert returns.events[1].ids == (ids[3],)
        assert await rows() == RETURNED

    async def test_times_count_from_the_start(
        self, holding: tuple[Oban, list[int]], sessions: Sessions
    ) -> None:
        oban, ids = holding
        held_for = 0.2
        with hear(oban, "job_stop") as stops:
            await asyncio.sleep(held_for)
            Held.release()
            await stops.wait(5)
        by_id = {stop.job.id: stop for stop in stops.events}
        assert by_id[ids[0]].duration >= held_for
        assert by_id[ids[4]].duration < by_id[ids[0]].duration
        assert by_id[ids[4]].queue_time >= held_for


async def test_jobs_claimed_during_a_pause_go_back(
    start: StartOban, sessions: Sessions, rows: Rows
) -> None:
    """The pause comes during the claim."""
    oban = await start(queues={"default": 5}, **NEVER)
    with hear(oban, "give_back_stop") as returns, paused_in_claims(oban, "default"):
        ids = await add(sessions, Quick.new(), Quick.new())
        await returns.wait()
    assert returns.events[0].ids == tuple(ids)
    assert await rows() == [(S.AVAILABLE, 0)] * 2
    assert Quick.ran == []


async def test_two_nodes_share_long_jobs_to_the_end(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """Neither holds a job while the other one has a free slot."""
    ran: Counter[str] = Counter()
    last: dict[str, float] = {}

    @job(name="takes_a_while")
    async def work() -> None:
        await asyncio.sleep(0.1)

    await add(sessions, *(work.new() for _ in range(100)))
    nodes = [
        Oban(engine, name=name, node=name, queues={"default": 10}, **NEVER) for name in ("a", "b")
    ]
    with hear(Oban, "ack_stop") as acks, hear(Oban, "give_back_stop") as returns:
        for node in nodes:
            await node.start()
        await acks.counted(100)
    async with sessions() as session:
        for by, at in await session.execute(select(Job.attempted_by, Job.completed_at)):
            ran[by[0]] += 1
            last[by[0]] = max(last.get(by[0], 0.0), at.timestamp())
    for node in nodes:
        await node.stop()
    assert returns.events == []
    assert min(ran.values()) >= 30, ran


async def test_many_queues_take_fair_turns(start: StartOban, sessions: Sessions) -> None:
    """No queue makes its second claim before another one makes its first."""
    names = [f"q{number}" for number in range(60)]
    async with sessions.begin() as session:
        session.add_all([Quick.new(queue=name) for name in names for _ in range(6)])
    with hear(Oban, "claim_stop") as claims, hear(Oban, "ack_stop") as acks:
        await start(queues=dict.fromkeys(names, 2), claim_ahead=0, **NEVER)
        await acks.counted(len(names) * 6)
    order = [claim.queue for claim in claims.events]
    firsts = {name: order.index(name) for name in names}
    seconds = [order.index(name, firsts[name] + 1) for name in names]
    # This number of claims runs at the same time.
    assert max(firsts.values()) <= min(seconds) + 3
