"""The stager: a scheduled job starts when it is due, not at the next poll."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Snooze, Worker
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.stager import Stager
from tests.conftest import StartOban
from tests.factories import JobFactory
from tests.listening import hear
from tests.proxy import Proxy
from tests.runtime.conftest import Rows, until
from tests.runtime.workers import Quick

Sessions = async_sessionmaker[AsyncSession]

S = JobState
# A job that starts within the patience of the tests was not found by a poll.
NEVER = {"poll_interval": 3600.0, "fallback_interval": 3600.0}
SOON = timedelta(milliseconds=100)


class Twice(Worker, name="twice"):
    async def process(self, job: Job) -> Snooze | None:
        return None if job.meta.get("snoozed") else Snooze(0.05)


@pytest.fixture
def make(engine: AsyncEngine, prefix: str) -> Callable[..., Stager]:
    def make(batch: int = 100) -> Stager:
        return Stager(
            Database(engine, prefix),
            lambda name, data: None,
            wake_queues=woken.extend,
            poll_interval=lambda: 15.0,
            batch=batch,
        )

    woken: list[str] = []
    make.woken = woken  # type: ignore[attr-defined]
    return make


async def test_a_pass_promotes_what_is_due_and_waits_for_the_next(
    make: Callable[..., Stager], sessions: Sessions, rows: Rows
) -> None:
    now = datetime.now(UTC)
    async with sessions.begin() as session:
        session.add(JobFactory(retryable=True, scheduled_at=now - timedelta(seconds=1)))
        session.add(JobFactory(scheduled=True, queue="other", scheduled_at=now))
        session.add(JobFactory(scheduled=True, scheduled_at=now + timedelta(seconds=10)))
    stager = make()
    delay = await stager.run_once()
    assert 0 < delay <= 10
    assert set(make.woken) == {"default", "other"}  # type: ignore[attr-defined]
    assert await rows() == [(S.AVAILABLE, 1), (S.AVAILABLE, 0), (S.SCHEDULED, 0)]


async def test_with_nothing_near_it_waits_for_the_poll(
    make: Callable[..., Stager], sessions: Sessions
) -> None:
    stager = make()
    assert await stager.run_once() == 15.0
    async with sessions.begin() as session:
        session.add(JobFactory(scheduled=True))  # in an hour
    assert await stager.run_once() == 15.0


async def test_a_full_batch_is_followed_by_another_at_once(
    make: Callable[..., Stager], sessions: Sessions, rows: Rows
) -> None:
    past = datetime.now(UTC) - timedelta(minutes=1)
    async with sessions.begin() as session:
        session.add_all(JobFactory(scheduled=True, scheduled_at=past) for _ in range(3))
    stager = make(batch=2)
    assert await stager.run_once() == 0.0
    assert await stager.run_once() == 15.0
    assert await rows() == [(S.AVAILABLE, 0)] * 3


@pytest.mark.parametrize("notify", ["listen", "poll"])
async def test_a_commit_in_this_process_is_heard_of(
    start: StartOban, sessions: Sessions, notify: str
) -> None:
    oban = await start(queues={"default": 5}, notify=notify, **NEVER)
    with hear(oban, "job_start") as starts:
        async with sessions.begin() as session:
            await Quick.enqueue({}, conn=session, schedule_in=SOON)
        (begun,) = await starts.wait()
    assert begun.job.attempted_at >= begun.job.scheduled_at


async def test_a_commit_elsewhere_is_heard_of(
    start: StartOban, proxy: Proxy, prefix: str, sessions: Sessions
) -> None:
    """To the node that runs it, the commit is at another address, as another process's is."""
    oban = await start(proxy.dsn, prefix=prefix, queues={"default": 5}, **NEVER)
    assert oban._supervisor is not None
    await until(lambda: oban._supervisor.notifier.listening)
    with hear(oban, "job_start") as starts:
        async with sessions.begin() as session:
            await Quick.enqueue({}, conn=session, schedule_in=SOON)
        (begun,) = await starts.wait()
    assert begun.job.attempted_at >= begun.job.scheduled_at


async def test_an_earlier_job_is_not_kept_by_a_later_one(
    start: StartOban, sessions: Sessions
) -> None:
    oban = await start(queues={"default": 5}, **NEVER)
    with hear(oban, "job_start") as starts:
        for delay in (timedelta(hours=1), timedelta(seconds=5), SOON):
            async with sessions.begin() as session:
                await Quick.enqueue({"in": str(delay)}, conn=session, schedule_in=delay)
        (begun,) = await starts.wait()
    assert begun.job.args == {"in": str(SOON)}


async def test_a_job_that_was_snoozed_runs_again_when_it_is_due(
    start: StartOban, sessions: Sessions, rows: Rows
) -> None:
    oban = await start(queues={"default": 5}, **NEVER)
    with hear(oban, "ack_stop") as acks:
        async with sessions.begin() as session:
            session.add(Twice.new())
        await acks.counted(2)
    assert await rows() == [(S.COMPLETED, 1)]


async def test_what_is_expected_before_the_clock_is_known_makes_a_pass(
    make: Callable[..., Stager],
) -> None:
    stager = make()
    stager.expect(datetime.now(UTC) + timedelta(hours=1))
    assert stager._woken.is_set()


async def test_news_of_the_past_and_of_the_far_future(make: Callable[..., Stager]) -> None:
    stager = make()
    await stager.start()
    await until(lambda: stager._alarm is not None)
    alarm = stager._alarm
    stager.expect(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert stager._alarm is alarm
    stager.expect(datetime(1, 1, 2, tzinfo=UTC))
    assert stager._alarm is not None
    assert stager._alarm.when() <= asyncio.get_running_loop().time()
    await stager.stop()
