"""Where a claim starts: behind the last claim, and often enough at the front."""

from collections.abc import Callable
from datetime import datetime
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import JobState, Oban
from oban_sqla.models.job import COLUMNS
from oban_sqla.runtime import claim_position
from oban_sqla.runtime.claim_position import ClaimPosition
from oban_sqla.statements.claim import FRONT
from oban_sqla.statements.claimed import Claimed
from tests.conftest import StartOban, Tune
from tests.listening import hear
from tests.runtime.conftest import Clock, Rows
from tests.runtime.workers import Held, Quick

Sessions = async_sessionmaker[AsyncSession]

AT = datetime(2026, 11, 1, 12)


def claimed(priority: int, at: datetime | None, id: int) -> Claimed:
    values = {"id": id, "priority": priority, "scheduled_at": at, "state": "executing"}
    return Claimed([*(values.get(column) for column in COLUMNS), None])


@pytest.fixture
def clock(clock_of: Callable[[ModuleType], Clock]) -> Clock:
    return clock_of(claim_position)


def behind(position: ClaimPosition) -> Any:
    params = position.next()
    return None if params is FRONT else tuple(params.values())


class TestNext:
    def test_the_first_claim_starts_at_the_front(self, clock: Clock) -> None:
        assert behind(ClaimPosition()) is None

    def test_the_claim_after_a_full_one_starts_behind_its_last_job(self, clock: Clock) -> None:
        position = ClaimPosition()
        position.next()
        position.claimed([claimed(0, AT, 1), claimed(2, AT, 7)], full=True, duration=0.01)
        assert behind(position) == (2, AT, 7)

    def test_the_claim_after_one_that_was_not_full_starts_at_the_front(self, clock: Clock) -> None:
        position = ClaimPosition()
        position.next()
        position.claimed([claimed(0, AT, 1)], full=True, duration=0.01)
        position.next()
        position.claimed([claimed(0, AT, 2)], full=False, duration=0.01)
        assert not position.at_front
        assert behind(position) is None

    def test_news_makes_some_claims_start_at_the_front(self, clock: Clock) -> None:
        position = ClaimPosition()
        position.next()
        position.claimed([claimed(0, AT, 1)], full=True, duration=0.01)
        position.news()
        assert behind(position) == (0, AT, 1)
        clock.now += 0.11
        assert behind(position) is None
        position.claimed([claimed(0, AT, 2)], full=True, duration=0.0)
        assert behind(position) == (0, AT, 2)

    def test_some_claims_without_news_start_at_the_front(self, clock: Clock) -> None:
        position = ClaimPosition()
        position.next()
        position.claimed([claimed(0, AT, 1)], full=True, duration=0.01)
        clock.now += 0.9
        assert behind(position) == (0, AT, 1)
        clock.now += 0.2
        assert behind(position) is None

    def test_a_time_that_python_can_not_hold_is_no_position(self, clock: Clock) -> None:
        position = ClaimPosition()
        position.next()
        position.claimed([claimed(0, None, 1)], full=True, duration=0.01)
        assert behind(position) is None


async def test_a_job_of_better_priority_overtakes_waiting_jobs(
    start: StartOban, sessions: Sessions, tune: Tune
) -> None:
    """The position of the job is before that of the last claim."""
    tune(claim_position, SHARE=0.0)
    async with sessions.begin() as session:
        session.add_all([Held.new(priority=5) for _ in range(6)])
    oban = await start(queues={"default": 1}, claim_ahead=0, poll_interval=3600.0)
    with hear(oban, "job_start") as starts:
        await Held.begun()
        async with sessions.begin() as session:
            session.add(Quick.new(priority=0))
        Held.release()
        await starts.wait(6)
    order = [start.job.priority for start in starts.events]
    # The claim after the commit may have been on its way.
    assert 0 in order[:3], order


async def test_a_job_that_becomes_visible_late_is_claimed(
    start: StartOban, sessions: Sessions, rows: Rows
) -> None:
    """The transaction of the job began before those of jobs that are already claimed."""
    oban = Oban(sessions, queues={"default": 2}, poll_interval=3600.0, fallback_interval=3600.0)
    with hear(oban, "ack_stop") as acks:
        async with sessions() as late:
            late.add(Quick.new())
            await late.flush()
            async with sessions.begin() as session:
                session.add_all([Quick.new() for _ in range(20)])
            async with oban:
                await acks.counted(20)
                await late.commit()
                await acks.counted(21)
    assert await rows() == [(JobState.COMPLETED, 1)] * 21
