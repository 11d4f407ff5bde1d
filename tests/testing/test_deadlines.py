"""Deadlines in the transaction of a test: the end of jobs that wait too long."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban_sqla import Job, JobState, Oban, Worker
from oban_sqla.clock import client_now
from oban_sqla.models.deadline import ENTRY
from oban_sqla.testing import drain_queue, frozen_time

AT = datetime(2031, 5, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Plain(Worker, queue="deadline"):
    async def process(self, job: Job) -> None: ...


async def test_a_job_that_waited_too_long_is_cancelled(session: AsyncSession) -> None:
    with frozen_time(AT):
        session.add(late := Plain.new(deadline=60, scheduled_at=AT))
        session.add(fine := Plain.new(deadline=AT + 120 * SECOND, scheduled_at=AT))
        await session.flush()
    with frozen_time(AT + 61 * SECOND):
        await drain_queue(session, queue="deadline", with_scheduled=True)
    assert (late.state, fine.state) == (JobState.CANCELLED, JobState.COMPLETED)
    assert late.errors[0]["error"].startswith("the job had not begun by its deadline")


async def test_a_manual_retry_runs_after_the_deadline(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    with frozen_time(AT):
        session.add(late := Plain.new(deadline=60, scheduled_at=AT))
        await session.flush()
    with frozen_time(AT + 61 * SECOND):
        await drain_queue(session, queue="deadline", with_scheduled=True)
    assert late.state is JobState.CANCELLED
    await Oban(engine).retry_jobs(late, conn=session)
    await drain_queue(session, queue="deadline")
    assert late.state is JobState.COMPLETED


async def test_a_new_meta_keeps_the_deadline_unless_it_has_one(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    session.add(waiting := Plain.new(deadline=60, scheduled_at=client_now() + SECOND))
    await session.flush()
    await Oban(engine).update_jobs(waiting, {"meta": {"a": 1}}, conn=session)
    assert waiting.meta == {"a": 1, ENTRY: 60.0}
    await Oban(engine).update_jobs(waiting, {"meta": {ENTRY: 5}}, conn=session)
    assert waiting.meta == {ENTRY: 5}
