"""Claiming ahead: how many jobs, for how long, and what becomes of those that were not begun."""

import asyncio
import math

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban, Worker
from oban_sqla.events import GiveBackStop
from oban_sqla.runtime import ahead as ahead_module
from oban_sqla.runtime.ahead import LONGEST_WAIT, MOST, Ahead
from tests.conftest import StartOban
from tests.listening import hear
from tests.runtime.conftest import Rows
from tests.runtime.workers import Held

Sessions = async_sessionmaker[AsyncSession]
S = JobState
NEVER = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


async def add(sessions: Sessions, *jobs: Job) -> list[int]:
    async with sessions.begin() as session:
        session.add_all(jobs)
    return [job.id for job in jobs]


async def execution() -> None:
    raise AssertionError("it was begun")


class TestAhead:
    def ended(self, ahead: Ahead, count: int) -> None:
        for _ in range(count):
            ahead.ended()

    def test_as_many_as_will_end_until_the_next_answer(self) -> None:
        ahead = Ahead()
        ahead.answered(0.5, now=100.0)
        assert ahead.wanted == 0
        self.ended(ahead, 20)
        ahead.answered(1.0, now=104.0)
        assert ahead.wanted == 5

    def test_none_when_jobs_take_longer_than_the_database(self) -> None:
        ahead = Ahead()
        ahead.answered(0.002, now=100.0)
        self.ended(ahead, 20)
        ahead.answered(0.002, now=101.0)
        assert ahead.wanted == 0

    def test_only_what_ended_lately_counts(self) -> None:
        ahead = Ahead()
        ahead.answered(1.0, now=100.0)
        self.ended(ahead, 20)
        ahead.answered(1.0, now=101.0)
        ahead.answered(1.0, now=102.0)
        assert ahead.wanted == 0

    def test_there_are_not_more_than_that(self) -> None:
        ahead = Ahead()
        ahead.answered(1.0, now=100.0)
        self.ended(ahead, 2 * MOST)
        ahead.answered(1.0, now=101.0)
        assert ahead.wanted == MOST

    def test_it_is_the_first_that_waits_longest(self) -> None:
        ahead = Ahead()
        assert ahead.seconds_left(now=100.0) == math.inf
        ahead.put(1, execution(), now=100.0)
        ahead.put(2, execution(), now=100.0 + LONGEST_WAIT / 2)
        assert ahead.seconds_left(now=100.0 + LONGEST_WAIT / 2) == LONGEST_WAIT / 2
        assert ahead.seconds_left(now=100.0 + 2 * LONGEST_WAIT) == 0.0
        ahead.drop()

    def test_what_is_dropped_is_never_begun_and_not_claimed_again_at_once(self) -> None:
        ahead = Ahead()
        ahead.wanted = 3
        ahead.put(1, execution(), now=100.0)
        assert (len(ahead), ahead.ids) == (1, [1])
        ahead.drop()
        assert (len(ahead), ahead.ids, ahead.wanted) == (0, [], 0)


@pytest.fixture
def three_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three jobs are claimed ahead, by the first claim: as if others had ended at that pace."""
    wanted = Ahead.__init__

    def init(ahead: Ahead) -> None:
        wanted(ahead)
        ahead.wanted = 3

    monkeypatch.setattr(Ahead, "__init__", init)


@pytest.mark.usefixtures("three_ahead")
class TestProducer:
    async def test_what_waits_begins_in_its_order_when_there_is_a_slot(
        self, start: StartOban, sessions: Sessions, rows: Rows
    ) -> None:
        ids = await add(sessions, *(Held.new() for _ in range(6)))
        oban = Oban(sessions, queues={"default": 2}, **NEVER)
        with hear(oban, "ack_stop") as acks:
            async with oban:
                assert [await Held.begun(), await Held.begun()] == ids[:2]
                assert await rows() == [(S.EXECUTING, 1)] * 5 + [(S.AVAILABLE, 0)]
                assert Held._begun.empty()
                Held.release()
                await acks.counted(6)
        assert [await Held.begun() for _ in range(4)] == ids[2:]
        assert await rows() == [(S.COMPLETED, 1)] * 6

    async def test_it_goes_back_when_the_queue_is_paused(
        self, start: StartOban, sessions: Sessions, rows: Rows
    ) -> None:
        ids = await add(sessions, *(Held.new() for _ in range(5)))
        oban = await start(queues={"default": 2}, **NEVER)
        with hear(oban, "give_back_stop") as returns:
            assert [await Held.begun(), await Held.begun()] == ids[:2]
            await oban.pause_queue("default")
            await returns.wait()
        assert returns.events == [GiveBackStop("default", tuple(ids[2:]))]
        assert await rows() == [(S.EXECUTING, 1)] * 2 + [(S.AVAILABLE, 0)] * 3
        Held.release()

    async def test_a_stop_gives_it_back_before_it_waits_for_what_runs(
        self, sessions: Sessions, rows: Rows
    ) -> None:
        ids = await add(sessions, *(Held.new() for _ in range(5)))
        oban = Oban(sessions, queues={"default": 2}, **NEVER)
        with hear(oban, "give_back_stop") as returns:
            await oban.start()
            assert [await Held.begun(), await Held.begun()] == ids[:2]
            stop = asyncio.create_task(oban.stop())
            await returns.wait()
            assert not stop.done()
            Held.release()
            await stop
        assert await rows() == [(S.COMPLETED, 1)] * 2 + [(S.AVAILABLE, 0)] * 3

    async def test_it_goes_back_when_those_that_run_take_long(
        self,
        start: StartOban,
        sessions: Sessions,
        rows: Rows,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Another node may have a slot for it."""
        monkeypatch.setattr(ahead_module, "LONGEST_WAIT", 0.01)
        ids = await add(sessions, *(Held.new() for _ in range(5)))
        oban = Oban(sessions, queues={"default": 2}, **NEVER)
        with hear(oban, "give_back_stop") as returns:
            await oban.start()
            await returns.wait()
            assert returns.events == [GiveBackStop("default", tuple(ids[2:]))]
            assert await rows() == [(S.EXECUTING, 1)] * 2 + [(S.AVAILABLE, 0)] * 3
            Held.release()
            await oban.stop()

    async def test_a_job_that_is_cancelled_while_it_waits_is_told_so(
        self, start: StartOban, sessions: Sessions
    ) -> None:
        told: list[bool] = []

        class Asking(Worker, name="ahead.asking"):
            async def process(self, job: Job) -> None:
                told.append(job.cancelled())

        _, asking = await add(sessions, Held.new(), Asking.new(queue="default"))
        oban = await start(queues={"default": 1}, **NEVER)
        with hear(oban, "ack_stop") as acks:
            await Held.begun()
            async with sessions() as session:
                stored = await session.get_one(Job, asking)
            assert stored.state is S.EXECUTING
            assert await oban.cancel_jobs(stored) == 1
            assert oban._supervisor is not None
            oban._supervisor.cancel_job(asking)
            Held.release()
            await acks.counted(2)
        assert told == [True]
