"""`drain_queue`: run enqueued jobs in the transaction of a test, or those of an instance."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from oban_sqla import Job, JobState, Oban, ObanError, Worker
from oban_sqla.testing import drain_queue, frozen_time
from tests.databases import User
from tests.factories import JobFactory
from tests.testing import workers
from tests.testing.workers import (
    HOUR,
    Chain,
    Commit,
    Outcome,
    Plain,
    PlainRename,
    Remove,
    Rename,
    RollBack,
)

AT = datetime(2031, 5, 1, 12, tzinfo=UTC)


def counts(**ended: int) -> dict[str, int]:
    return (
        dict.fromkeys(("completed", "cancelled", "discarded", "retryable", "scheduled"), 0) | ended
    )


async def test_runs_uncommitted_jobs_of_the_test(session: AsyncSession) -> None:
    job = await Outcome.enqueue(conn=session)
    assert await drain_queue(session) == counts(completed=1)
    assert (job.state, job.attempt, job.recorded) == (JobState.COMPLETED, 1, {"attempt": 1})


async def test_counts_each_outcome(session: AsyncSession) -> None:
    ends = ["cancel", "snooze", "raise", "return", "return"]
    jobs = [Outcome.new({"end": end}) for end in ends]
    last = Outcome.new({"end": "raise"}, max_attempts=1)
    session.add_all([*jobs, last])
    assert await drain_queue(session, with_safety=True) == counts(
        completed=2, cancelled=1, discarded=1, retryable=1, scheduled=1
    )
    assert [job.state for job in [*jobs, last]] == [
        *("cancelled", "scheduled", "retryable", "completed", "completed", "discarded")
    ]


async def test_a_raise_is_recorded_and_raised(session: AsyncSession) -> None:
    first = await Outcome.enqueue({"end": "raise"}, conn=session)
    second = await Outcome.enqueue(conn=session)
    with pytest.raises(ValueError, match="boom"):
        await drain_queue(session)
    assert first.state == "retryable"
    assert "boom" in first.errors[0]["error"]
    assert second.state == "available"


async def test_a_job_without_an_attempt_left_is_discarded(session: AsyncSession) -> None:
    session.add(job := JobFactory(attempt=20, worker=Outcome.new().worker))
    assert await drain_queue(session) == counts(discarded=1)
    assert job.state == "discarded"


async def test_an_unknown_worker_fails_its_job(session: AsyncSession) -> None:
    session.add(Job("nobody.Knows"))
    with pytest.raises(ObanError, match="not registered"):
        await drain_queue(session)


class TestQueues:
    async def test_drains_one_queue(self, session: AsyncSession) -> None:
        session.add_all([other := Outcome.new(), Plain.new()])
        assert await drain_queue(session, "plain") == counts(completed=1)
        assert other.state == "available"

    async def test_drains_several_queues(self, session: AsyncSession) -> None:
        session.add_all([Outcome.new(), Plain.new(), left := Plain.new(queue="left")])
        assert await drain_queue(session, ["plain", "outcomes"]) == counts(completed=2)
        assert left.state == "available"

    async def test_promotes_only_their_scheduled_jobs(self, session: AsyncSession) -> None:
        session.add_all([Plain.new(schedule_in=1), other := Outcome.new(schedule_in=1)])
        assert await drain_queue(session, "plain", with_scheduled=True) == counts(completed=1)
        assert other.state == "scheduled"

    async def test_an_invalid_queue_is_refused(self, session: AsyncSession) -> None:
        with pytest.raises(ValueError, match="queue must not be blank"):
            await drain_queue(session, " ")
        with pytest.raises(TypeError, match="queue must be a string, not 5"):
            await drain_queue(session, 5)  # type: ignore[call-overload]


class TestScheduled:
    async def test_waits_until_it_is_due(self, session: AsyncSession) -> None:
        session.add_all([later := Plain.new(schedule_in=HOUR), Plain.new(scheduled_at=AT.min)])
        assert await drain_queue(session) == counts(completed=1)
        assert later.state == "scheduled"

    async def test_runs_on_request(self, session: AsyncSession) -> None:
        session.add(Plain.new(schedule_in=HOUR))
        assert await drain_queue(session, with_scheduled=True) == counts(completed=1)

    async def test_runs_until_a_time(self, session: AsyncSession) -> None:
        session.add_all([Plain.new(scheduled_at=AT), Plain.new(scheduled_at=AT + HOUR)])
        assert await drain_queue(session, with_scheduled=AT) == counts(completed=1)

    async def test_retries_until_there_is_no_attempt_left(self, session: AsyncSession) -> None:
        session.add(job := Outcome.new({"end": "raise"}, max_attempts=3))
        drained = await drain_queue(session, with_scheduled=True, with_safety=True)
        assert drained == counts(retryable=2, discarded=1)
        assert len(job.errors) == 3

    async def test_an_endless_snooze_is_an_error(self, session: AsyncSession) -> None:
        session.add(Outcome.new({"end": "snooze"}))
        with pytest.raises(ObanError, match="has snoozed 100 times"):
            await drain_queue(session, with_scheduled=True)


class TestFrozenTime:
    async def test_decides_which_jobs_are_due(self, session: AsyncSession) -> None:
        with frozen_time(AT) as now:
            session.add(job := Plain.new(schedule_in=HOUR))
            assert await drain_queue(session) == counts()
        with frozen_time(now + HOUR):
            assert await drain_queue(session) == counts(completed=1)
        assert job.scheduled_at == job.attempted_at == job.completed_at == AT + HOUR

    async def test_dates_a_retry(self, session: AsyncSession) -> None:
        session.add(job := Outcome.new({"end": "raise"}))
        with frozen_time(AT):
            await drain_queue(session, with_safety=True)
        assert job.scheduled_at == AT + timedelta(seconds=600)
        assert job.errors[0]["at"] == "2031-05-01T12:00:00.000000Z"
        with frozen_time(job.scheduled_at):
            assert (await drain_queue(session, with_safety=True))["retryable"] == 1

    async def test_dates_a_completion_in_the_session_of_a_worker(
        self, session: AsyncSession
    ) -> None:
        session.add(job := Chain.new({"left": 0}))
        with frozen_time(AT):
            await drain_queue(session)
        assert job.completed_at == AT


class TestRecursion:
    async def test_runs_jobs_that_jobs_enqueue(self, session: AsyncSession) -> None:
        session.add(Chain.new({"left": 3}))
        assert await drain_queue(session) == counts(completed=4)

    async def test_can_be_turned_off(self, session: AsyncSession) -> None:
        session.add_all([Chain.new({"left": 3}), Chain.new({"left": 3})])
        assert await drain_queue(session, with_recursion=False) == counts(completed=2)
        assert await drain_queue(session, with_recursion=False) == counts(completed=2)

    async def test_jobs_run_in_the_order_of_claims(
        self, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session.add_all([Chain.new({"left": n}, priority=9 - n) for n in (0, 1, 2)])
        # The job of priority 7 enqueues one of priority 0, which runs before 8 and 9.
        await drain_queue(session, with_recursion=True)
        ran = await session.scalars(
            select(Job.args["left"].as_integer()).order_by(Job.attempted_at)
        )
        assert ran.all()[:3] == [2, 1, 0]


class TestWorkerSession:
    async def test_joins_the_transaction_of_the_test(self, session: AsyncSession) -> None:
        session.add(user := User(name="Ann"))
        await session.flush()
        job = await Rename.enqueue({"id": user.id, "name": "Bob"}, conn=session)
        assert await drain_queue(session) == counts(completed=1)
        assert (user.name, job.recorded) == ("Bob", "Bob")

    async def test_is_given_to_a_sync_function(self, session: AsyncSession) -> None:
        session.add(user := User(name="Ann"))
        await session.flush()
        await PlainRename.enqueue({"id": user.id, "name": "Bob"}, conn=session)
        assert await drain_queue(session) == counts(completed=1)
        assert user.name == "Bob"

    async def test_a_raise_rolls_back_only_the_changes_of_the_job(
        self, session: AsyncSession
    ) -> None:
        session.add(user := User(name="Ann"))
        await session.flush()
        failing = {"id": user.id, "name": "Bob", "raise": True}
        session.add_all([Rename.new(failing), other := Chain.new({"left": 0})])
        assert await drain_queue(session, with_safety=True) == counts(retryable=1, completed=1)
        assert (user.name, other.state) == ("Ann", "completed")

    async def test_a_rollback_by_the_worker_keeps_the_changes_of_the_test(
        self, session: AsyncSession
    ) -> None:
        session.add_all([user := User(name="Ann"), job := RollBack.new()])
        assert await drain_queue(session) == counts(completed=1)
        assert (user.name, job.recorded) == ("Ann", ["Ann"])

    async def test_must_not_be_committed_by_the_worker(self, session: AsyncSession) -> None:
        session.add(Commit.new())
        with pytest.raises(ObanError, match="leave the commit out"):
            await drain_queue(session)
        assert await session.scalar(select(func.count()).select_from(User)) == 0

    async def test_does_not_see_instances_of_the_test(self, session: AsyncSession) -> None:
        """As in production, an attribute that is not loaded there must not be loaded here."""
        held: list[object] = []

        class Look(Worker):
            async def process(self, job: Job, session: AsyncSession) -> None:
                held.extend(session)

        session.add_all([User(name="Ann"), Look.new()])
        await drain_queue(session)
        assert held == []

    async def test_has_the_class_of_the_session_of_the_test(self, engine: AsyncEngine) -> None:
        classes: list[type] = []

        class Own(AsyncSession):
            pass

        class Look2(Worker):
            async def process(self, job: Job, session: AsyncSession) -> None:
                classes.append(type(session))

        async with Own(engine) as session:
            session.add(Look2.new())
            await drain_queue(session)
        assert classes == [Own]

    async def test_deleted_rows_leave_the_session_of_the_test(self, session: AsyncSession) -> None:
        session.add(user := User(name="Ann"))
        await session.flush()
        await Remove.enqueue({"id": user.id}, conn=session)
        await drain_queue(session)
        assert user not in session
        assert await session.get(User, user.id) is None


async def test_everything_is_rolled_back_with_the_test(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    session.add_all([User(name="Ann"), Chain.new({"left": 1}), Outcome.new()])
    await drain_queue(session)
    await session.rollback()
    for table in (Job, User):
        assert await session.scalar(select(func.count()).select_from(table)) == 0


async def test_a_session_with_its_own_transaction_is_drained(sessions: Any) -> None:
    """No outer connection is needed: the jobs run before the commit."""
    async with sessions.begin() as session:
        await Outcome.enqueue(conn=session)
        assert await drain_queue(session) == counts(completed=1)
    async with sessions() as session:
        assert (await session.scalars(select(Job.state))).all() == [JobState.COMPLETED]


async def test_a_scoped_session_is_drained(engine: AsyncEngine, sessions: Any) -> None:
    scoped = async_scoped_session(sessions, scopefunc=asyncio.current_task)
    scoped.add(Outcome.new())
    assert await drain_queue(scoped) == counts(completed=1)
    await scoped.remove()


async def test_a_cancelled_drain_writes_no_outcome(session: AsyncSession) -> None:
    started = asyncio.Event()

    class Endless(Worker):
        async def process(self, job: Job) -> None:
            started.set()
            await asyncio.Event().wait()

    session.add(Endless.new())
    await session.flush()
    draining = asyncio.create_task(drain_queue(session))  # type: ignore[arg-type]
    await started.wait()
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining


class TestInstance:
    async def test_commits_each_job(self, engine: AsyncEngine, sessions: Any) -> None:
        oban = Oban(engine)
        await oban.enqueue_many(Outcome.new(), Chain.new({"left": 1}))
        assert await drain_queue(oban) == counts(completed=3)
        async with sessions() as session:
            assert set(await session.scalars(select(Job.state))) == {JobState.COMPLETED}

    async def test_keeps_the_outcomes_before_an_error(
        self, engine: AsyncEngine, sessions: Any
    ) -> None:
        oban = Oban(engine)
        jobs = await oban.enqueue_many(Plain.new(), Outcome.new({"end": "raise"}, priority=1))
        with pytest.raises(ValueError, match="boom"):
            await drain_queue(oban)
        async with sessions() as session:
            states = [(await session.get_one(Job, job.id)).state for job in jobs]
        assert states == ["completed", "retryable"]

    async def test_runs_a_sync_worker_with_a_session(
        self, engine: AsyncEngine, sessions: Any
    ) -> None:
        async with sessions.begin() as session:
            session.add(user := User(name="Ann"))
            await session.flush()
            await PlainRename.enqueue({"id": user.id, "name": "Bob"}, conn=session)
        assert await drain_queue(Oban(engine)) == counts(completed=1)

    async def test_emits_events(self, engine: AsyncEngine) -> None:
        oban = Oban(engine)
        heard: list[str] = []
        event.listen(oban, "job_start", lambda oban, start: heard.append(start.job.worker))
        await oban.enqueue(Plain.new())
        await drain_queue(oban)
        assert heard == [f"{workers.__name__}.Plain"]


def ends(session: Session, *jobs: Job) -> dict[str, int]:
    session.add_all(jobs)
    return drain_queue(session, with_safety=True)


class TestSyncSession:
    def test_returns_at_once(self, sync_session: Session) -> None:
        jobs = [Outcome.new(), Plain.new(), Outcome.new({"end": "raise"})]
        assert ends(sync_session, *jobs) == counts(completed=2, retryable=1)
        assert [job.state for job in jobs] == ["completed", "completed", "retryable"]

    def test_workers_join_its_transaction(self, sync_session: Session) -> None:
        sync_session.add_all([first := User(name="Ann"), second := User(name="Ann")])
        sync_session.flush()
        plain = PlainRename.new({"id": first.id, "name": "Bob"})
        asynchronous = Rename.new({"id": second.id, "name": "Bob"})
        assert ends(sync_session, plain, asynchronous) == counts(completed=2)
        assert (first.name, second.name) == ("Bob", "Bob")

    def test_a_raise_rolls_back_only_the_changes_of_the_job(self, sync_session: Session) -> None:
        sync_session.add(user := User(name="Ann"))
        sync_session.flush()
        failing = Rename.new({"id": user.id, "name": "Bob", "raise": True})
        assert ends(sync_session, failing, Chain.new({"left": 2})) == counts(
            retryable=1, completed=3
        )
        assert user.name == "Ann"

    async def test_can_be_drained_while_an_event_loop_runs(self, sync_session: Session) -> None:
        sync_session.add(user := User(name="Ann"))
        sync_session.flush()
        jobs = [Outcome.new(), Rename.new({"id": user.id, "name": "Bob"})]
        assert ends(sync_session, *jobs) == counts(completed=2)
        assert user.name == "Bob"

    def test_may_be_scoped(self, session_factory: sessionmaker[Session]) -> None:
        scoped = scoped_session(session_factory)
        scoped.add(Outcome.new())
        assert drain_queue(scoped) == counts(completed=1)
        scoped.remove()


@pytest.mark.parametrize("wrong", [None, "session", Session], ids=str)
def test_only_sessions_and_instances_are_drained(wrong: Any) -> None:
    drain: Callable[[Any], Any] = drain_queue
    with pytest.raises(TypeError, match="pass the session of the test"):
        drain(wrong)
