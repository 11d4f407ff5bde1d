"""`all_enqueued`, `assert_enqueued`, `refute_enqueued`."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from oban_sqla import Job, JobState, Oban
from oban_sqla.testing import (
    all_enqueued,
    assert_enqueued,
    drain_queue,
    frozen_time,
    refute_enqueued,
)
from tests.factories import JobFactory
from tests.testing.workers import HOUR, Outcome, Plain, report

AT = datetime(2031, 5, 1, 12, tzinfo=UTC)


class TestAll:
    async def test_the_newest_jobs_come_first(self, session: AsyncSession) -> None:
        first = await Outcome.enqueue(conn=session)
        await session.flush()
        second = await Plain.enqueue(conn=session)
        assert await all_enqueued(session) == [second, first]

    async def test_jobs_have_the_states_before_an_attempt(self, session: AsyncSession) -> None:
        session.add_all(JobFactory(**{state.value: True}) for state in JobState)
        states = {job.state for job in await all_enqueued(session)}
        assert states == {JobState.AVAILABLE, JobState.SCHEDULED, JobState.SUSPENDED}

    async def test_jobs_are_read_from_the_database(
        self, engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]
    ) -> None:
        async with sessions.begin() as session:
            session.add(job := Plain.new())
        async with sessions() as session:
            await session.get(Job, job.id)
            await drain_queue(Oban(engine))
            assert await all_enqueued(session) == []

    async def test_an_instance_is_accepted(self, engine: AsyncEngine) -> None:
        oban = Oban(engine)
        await oban.enqueue(Plain.new({"n": 1}))
        (job,) = await all_enqueued(oban, worker=Plain)
        assert job.args == {"n": 1}

    def test_a_sync_session_is_accepted(self, sync_session: Session) -> None:
        sync_session.add(job := Plain.new())
        assert all_enqueued(sync_session, worker=Plain) == [job]
        assert all_enqueued(sync_session, worker=Outcome) == []


GIVEN = {
    "args": {"user": {"id": 7, "tags": ["a", "b"]}, "n": 1, "none": None},
    "meta": {"trace": "abc"},
    "tags": ["mail", "slow"],
    "queue": "mailers",
    "priority": 3,
    "max_attempts": 5,
    "scheduled_at": AT,
}

MET: list[dict[str, Any]] = [
    {},
    {"worker": Outcome},
    {"worker": "tests.testing.workers.Outcome"},
    {"args": {"n": 1}},
    {"args": {"none": None}},
    {"args": {"user": {"id": 7}}},
    {"args": {"user": {"tags": ["a", "b"]}, "n": 1}},
    {"args": {"user": ANY, "n": pytest.approx(1.0)}},
    {"meta": {"trace": "abc"}},
    {"tags": ["Mail"]},
    {"tags": ("slow", "mail")},
    {"queue": "mailers", "priority": 3, "max_attempts": 5},
    {"scheduled_at": AT},
    {"scheduled_at": AT.replace(tzinfo=None) + timedelta(seconds=1)},
    {"schedule_in": 3600},
    {"schedule_in": HOUR},
]

UNMET: list[dict[str, Any]] = [
    {"worker": Plain},
    {"worker": report},
    {"args": {"n": 2}},
    {"args": {"m": None}},
    {"args": {"user": {"id": 8}}},
    {"args": {"user": {"tags": ["a"]}}},
    {"args": {"n": {"deeper": 1}}},
    {"meta": {"trace": "abd"}},
    {"tags": ["mail", "other"]},
    {"queue": "mailer"},
    {"queue": "mailers", "priority": 4},
    {"max_attempts": 6},
    {"scheduled_at": AT + timedelta(seconds=2)},
    {"schedule_in": HOUR / 2},
]


class TestExpected:
    @pytest.mark.parametrize("expected", MET)
    async def test_a_matching_job_passes(self, session: AsyncSession, expected: Any) -> None:
        session.add(job := _given())
        with frozen_time(AT - HOUR):
            assert await assert_enqueued(session, **expected) is job
            with pytest.raises(AssertionError):
                await refute_enqueued(session, **expected)

    @pytest.mark.parametrize("expected", UNMET)
    async def test_no_matching_job_fails(self, session: AsyncSession, expected: Any) -> None:
        session.add(_given())
        with frozen_time(AT - HOUR):
            await refute_enqueued(session, **expected)
            with pytest.raises(AssertionError):
                await assert_enqueued(session, **expected)

    @pytest.mark.parametrize(
        ("expected", "message"),
        [
            ({"arg": {}}, "no field 'arg'; did you mean 'args'"),
            ({"args": [1]}, r"args must be a mapping, not \[1\]"),
            ({"worker": 7}, "worker must be a string, not 7"),
            ({"queue": ""}, "queue must not be blank"),
            ({"schedule_in": -1}, "schedule_in must not be negative"),
            ({"priority": "high"}, "priority must be an integer, not 'high'"),
            ({"max_attempts": 0}, "max_attempts must be from 1 to 32767, got 0"),
        ],
    )
    async def test_an_impossible_expectation_is_refused(
        self, session: AsyncSession, expected: Any, message: str
    ) -> None:
        for ask in (all_enqueued, assert_enqueued, refute_enqueued):
            with pytest.raises((TypeError, ValueError), match=message):
                await ask(session, **expected)


def _given() -> Job:
    options = {key: value for key, value in GIVEN.items() if key != "args"}
    return Outcome.new(GIVEN["args"], **options)  # type: ignore[arg-type]


class TestFailure:
    async def test_shows_the_nearest_first(self, session: AsyncSession) -> None:
        session.add(Plain.new({"email": "ann"}))
        await session.flush()
        session.add(Outcome.new({"email": "bob"}, priority=2))
        await session.flush()
        session.add(Outcome.new({"mail": "ann"}, queue="other", priority=2))
        await session.flush()
        with pytest.raises(AssertionError) as failure:
            await assert_enqueued(session, worker=Outcome, args={"email": "ann"}, queue="outcomes")
        ids = {job.args.get("email", "none"): job.id for job in await all_enqueued(session)}
        assert str(failure.value).splitlines() == [
            "no job with worker='tests.testing.workers.Outcome', args={'email': 'ann'},"
            " queue='outcomes' is enqueued",
            "enqueued, the nearest first:",
            "  tests.testing.workers.Outcome {'email': 'bob'} in outcomes, available,"
            f" id {ids['bob']}",
            "    args['email'] is 'bob'",
            "  tests.testing.workers.Outcome {'mail': 'ann'} in other, available,"
            f" id {ids['none']}",
            "    args has no 'email'",
            "    queue is 'other'",
            "  tests.testing.workers.Plain {'email': 'ann'} in plain, available,"
            f" id {ids['ann']}",
            "    worker is 'tests.testing.workers.Plain'",
            "    queue is 'plain'",
        ]

    async def test_says_if_it_ran_already(self, session: AsyncSession) -> None:
        session.add(job := Plain.new())
        await drain_queue(session)
        with pytest.raises(AssertionError) as failure:
            await assert_enqueued(session, worker=Plain)
        assert str(failure.value).splitlines() == [
            "no job with worker='tests.testing.workers.Plain' is enqueued; jobs in other states"
            " that match:",
            f"  tests.testing.workers.Plain {{}} in plain, completed, id {job.id}",
            "nothing is enqueued",
        ]

    async def test_shows_no_more_than_ten(self, session: AsyncSession) -> None:
        session.add_all(Plain.new({"n": n}) for n in range(12))
        with pytest.raises(AssertionError, match=r"(?s)Plain \{'n': 11\}.*\n  and 2 more$"):
            await refute_enqueued(session)


class TestTimeout:
    async def test_waits_for_a_job(self, engine: AsyncEngine, session: AsyncSession) -> None:
        oban = Oban(engine)
        looking = asyncio.create_task(
            assert_enqueued(session, worker=Plain, timeout=20)  # type: ignore[arg-type]
        )
        refuting = asyncio.create_task(
            refute_enqueued(oban, worker=Plain, timeout=20)  # type: ignore[arg-type]
        )
        await refute_enqueued(oban, worker=Plain)
        job = await oban.enqueue(Plain.new())
        assert (await looking).id == job.id
        with pytest.raises(AssertionError):
            await refuting

    async def test_gives_up(self, session: AsyncSession) -> None:
        with pytest.raises(AssertionError, match=r"nor was within 0\.05 s"):
            await assert_enqueued(session, timeout=0.05)
        await refute_enqueued(session, timeout=timedelta(milliseconds=50))
        with pytest.raises(TypeError, match="timeout must be a timedelta or seconds, not 'soon'"):
            await refute_enqueued(session, timeout="soon")  # type: ignore[call-overload]

    def test_a_sync_session_waits(self, sync_session: Session) -> None:
        refute_enqueued(sync_session, timeout=0.05)
        sync_session.add(job := Plain.new())
        assert assert_enqueued(sync_session, timeout=20) is job
