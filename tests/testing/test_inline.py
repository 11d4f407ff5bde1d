"""`inline`: jobs run in the flush that inserts them."""

from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban_sqla import Job, JobState
from oban_sqla.testing import drain_queue, frozen_time, inline
from tests.databases import User
from tests.testing.workers import HOUR, Chain, Outcome, Plain, PlainRename, Rename


async def test_a_job_runs_at_its_flush(session: AsyncSession) -> None:
    with inline():
        job = await Outcome.enqueue(conn=session)
        assert job.state == "available"
        await session.flush()
        assert (job.state, job.recorded) == ("completed", {"attempt": 1})


async def test_a_job_sees_rows_of_the_same_flush(session: AsyncSession) -> None:
    with inline():
        session.add(user := User(id=7, name="Ann"))
        await Rename.enqueue({"id": 7, "name": "Bob"}, conn=session)
        await session.commit()
    assert user.name == "Bob"


async def test_a_sync_worker_gets_a_session(session: AsyncSession) -> None:
    with inline():
        session.add(user := User(id=7, name="Ann"))
        session.add(PlainRename.new({"id": 7, "name": "Bob"}))
        await session.flush()
    assert user.name == "Bob"


async def test_a_job_is_rolled_back_with_the_session(session: AsyncSession) -> None:
    with inline():
        session.add_all([User(id=7, name="Ann"), Chain.new({"left": 2})])
        await session.flush()
        await session.rollback()
    assert await session.scalar(select(func.count()).select_from(Job)) == 0


async def test_jobs_that_jobs_enqueue_run_too(session: AsyncSession) -> None:
    with inline():
        session.add(Chain.new({"left": 3}))
        await session.flush()
    states = (await session.scalars(select(Job.state))).all()
    assert states == [JobState.COMPLETED] * 4


async def test_only_new_jobs_run(session: AsyncSession) -> None:
    session.add(before := Plain.new())
    await session.flush()
    with inline():
        session.add(Plain.new())
        await session.flush()
        before.priority = 4
        await session.flush()
    assert before.state == "available"
    session.add(after := Plain.new())
    await session.flush()
    assert after.state == "available"


async def test_scheduled_jobs_wait(session: AsyncSession) -> None:
    with inline():
        session.add(job := Plain.new(schedule_in=HOUR))
        await session.flush()
        assert job.state == "scheduled"
        with frozen_time(job.scheduled_at):
            assert (await drain_queue(session))["completed"] == 1


async def test_a_raise_fails_the_flush(session: AsyncSession) -> None:
    session.add(Outcome.new({"end": "raise"}))
    with inline(), pytest.raises(ValueError, match="boom"):
        await session.flush()
    await session.rollback()
    assert await session.scalar(select(func.count()).select_from(Job)) == 0


async def test_a_raise_is_only_recorded_on_request(session: AsyncSession) -> None:
    with inline(with_safety=True):
        session.add_all([job := Outcome.new({"end": "raise"}), User(name="Ann")])
        await session.flush()
    assert job.state == "retryable"
    assert "boom" in job.errors[0]["error"]
    assert await session.scalar(select(User.name)) == "Ann"


async def test_a_job_in_nested_blocks_runs_once(session: AsyncSession) -> None:
    with inline(), inline():
        session.add(job := Outcome.new())
        await session.flush()
    assert (job.state, job.attempt) == ("completed", 1)


class TestSyncSession:
    def test_a_job_runs_at_its_flush(self, sync_session: Session) -> None:
        jobs = [
            Outcome.new(),
            Plain.new(),
            PlainRename.new({"id": 7, "name": "Bob"}),
            Rename.new({"id": 8, "name": "Bob"}),
            Chain.new({"left": 2}),
        ]
        with inline():
            sync_session.add_all([User(id=7, name="Ann"), User(id=8, name="Ann"), *jobs])
            sync_session.commit()
        assert {job.state for job in jobs} == {JobState.COMPLETED}
        assert sync_session.scalars(select(User.name)).all() == ["Bob", "Bob"]

    async def test_a_job_runs_while_an_event_loop_runs(self, sync_session: Session) -> None:
        with inline():
            sync_session.add(job := Rename.new({"id": 7, "name": "Bob"}))
            sync_session.add(user := User(id=7, name="Ann"))
            sync_session.flush()
        assert (job.state, user.name) == ("completed", "Bob")


async def test_a_session_with_its_own_transaction_runs_jobs(sessions: Any) -> None:
    with inline():
        async with sessions.begin() as session:
            session.add(job := Outcome.new())
        assert job.state == "completed"
    async with sessions() as session:
        assert (await session.scalars(select(Job.state))).all() == [JobState.COMPLETED]


async def test_a_duplicate_does_not_run(session: AsyncSession) -> None:
    session.add(before := Plain.new(unique=True))
    await session.flush()
    with inline():
        session.add(again := Plain.new(unique=True))
        await session.flush()
    assert again.conflict
    assert before.state == "available"
