"""The stager: a scheduled job starts when it is due, without waiting for a poll."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock

import pytest
from sqlalchemy import literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Snooze, Worker
from oban_sqla.runtime import stager as stager_module
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.raw_statement import RawStatement
from oban_sqla.runtime.stager import Stager
from tests.conftest import Add, StartOban, Tune
from tests.factories import JobFactory
from tests.listening import hear
from tests.proxy import Proxy
from tests.runtime.conftest import Rows, until
from tests.runtime.workers import Quick
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]

S = JobState
# No poll can have found a job that starts within the patience of the tests.
NEVER = {"poll_interval": 3600.0, "fallback_interval": 3600.0}
Find = Callable[[int], Awaitable[Job]]
SOON = timedelta(milliseconds=100)


class Twice(Worker, name="twice"):
    async def process(self, job: Job) -> Snooze | None:
        return None if job.meta.get("snoozed") else Snooze(0.05)


@pytest.fixture
def make(engine: AsyncEngine, prefix: str) -> Callable[..., Stager]:
    def make(batch: int = 100, queues: Collection[str] = ()) -> Stager:
        return Stager(
            Database(engine, prefix),
            lambda name, data: None,
            queues=lambda: queues,
            wake_queues=woken.extend,
            poll_interval=lambda: 15.0,
            batch=batch,
        )

    woken: list[str] = []
    make.woken = woken  # type: ignore[attr-defined]
    return make


@contextmanager
def counted(stager: Stager) -> Iterator[list[int]]:
    """The number of jobs that each pass promotes."""
    staged: list[int] = []
    before = stager._emit
    stager._emit = lambda name, data: staged.append(data.count)  # type: ignore[attr-defined]
    yield staged
    stager._emit = before


@contextmanager
def meanwhile(stager: Stager, happen: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """Call a function between the statement of a pass and its answer."""
    stage = stager._stage

    async def stage_and_more(*args: Any) -> Any:
        row = await stage(*args)
        await happen()
        return row

    stager._stage = stage_and_more  # type: ignore[method-assign,assignment]
    yield
    stager._stage = stage  # type: ignore[method-assign]


@pytest.fixture
def find(sessions: Sessions) -> Find:
    """The current row of a job, as an instance."""

    async def find(id: int) -> Job:
        async with sessions() as session:
            return await session.get_one(Job, id)

    return find


async def test_a_pass_promotes_due_jobs_and_waits_for_the_next_one(
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


async def test_without_jobs_due_soon_the_stager_waits_for_the_poll(
    make: Callable[..., Stager], sessions: Sessions
) -> None:
    stager = make()
    assert await stager.run_once() == pytest.approx(15.0, abs=1)
    async with sessions.begin() as session:
        session.add(JobFactory(scheduled=True))  # due in an hour
    assert await stager.run_once() == pytest.approx(15.0, abs=1)


async def test_a_full_batch_causes_another_pass_at_once(
    make: Callable[..., Stager], sessions: Sessions, rows: Rows
) -> None:
    past = datetime.now(UTC) - timedelta(minutes=1)
    async with sessions.begin() as session:
        session.add_all(JobFactory(scheduled=True, scheduled_at=past) for _ in range(3))
    stager = make(batch=2)
    assert await stager.run_once() == 0.0
    assert await stager.run_once() == pytest.approx(15.0, abs=1)
    assert await rows() == [(S.AVAILABLE, 0)] * 3


class TestShares:
    async def test_many_due_jobs_of_one_queue_keep_no_other_queue_waiting(
        self, make: Callable[..., Stager], add: Add, find: Find
    ) -> None:
        past = datetime.now(UTC) - timedelta(minutes=1)
        await add(*(JobFactory(scheduled=True, scheduled_at=past, priority=1) for _ in range(30)))
        stager = make(batch=10, queues=["default", "other"])
        assert await stager.run_once() == 0.0
        late = past + timedelta(seconds=30)
        others = await add(
            JobFactory(scheduled=True, scheduled_at=late, queue="other"),
            # No job of a higher priority is due.
            JobFactory(scheduled=True, scheduled_at=late),
        )
        assert await stager.run_once() == 0.0
        assert [(await find(id)).state for id in others] == [S.AVAILABLE] * 2

    async def test_a_pass_promotes_fewer_jobs_if_promoting_is_slow(
        self, make: Callable[..., Stager], add: Add, tune: Tune
    ) -> None:
        past = datetime.now(UTC) - timedelta(minutes=1)
        await add(*(JobFactory(scheduled=True, scheduled_at=past) for _ in range(40)))
        tune(stager_module, SMALLEST_BATCH=2)
        stager = make(batch=10)
        sizes = []
        for pass_time in (0.0, 0.0, 0.0, 3600.0, 3600.0, 3600.0):
            tune(stager_module, PASS_TIME=pass_time)
            with counted(stager) as staged:
                await stager.run_once()
            sizes += staged
        assert sizes == [10, 5, 2, 2, 4, 8]


class TestPosition:
    """A pass begins behind the last promoted job, and sometimes at the front."""

    async def test_a_pass_starts_behind_the_last_job_and_the_poll_finds_earlier_jobs(
        self, make: Callable[..., Stager], add: Add, find: Find
    ) -> None:
        now = datetime.now(UTC)
        stager = make()
        await stager.run_once()
        # An insert without a notification.
        (untold,) = await add(JobFactory(scheduled=True, scheduled_at=now - timedelta(hours=1)))
        await stager.run_once()
        assert (await find(untold)).state is S.SCHEDULED
        stager._front_at = time.monotonic()
        await stager.run_once()
        assert (await find(untold)).state is S.AVAILABLE

    async def test_a_pass_starts_at_a_job_in_the_news(
        self, make: Callable[..., Stager], add: Add, find: Find
    ) -> None:
        at = datetime.now(UTC) - timedelta(minutes=1)
        stager = make()
        await stager.run_once()
        (told,) = await add(JobFactory(scheduled=True, scheduled_at=at))
        stager.expect(at + timedelta(hours=1))
        stager.expect(at)
        stager.expect(at + timedelta(seconds=1))
        await stager.run_once()
        assert (await find(told)).state is S.AVAILABLE

    async def test_the_next_pass_finds_a_job_announced_during_a_pass(
        self,
        make: Callable[..., Stager],
        engine: AsyncEngine,
        add: Add,
        find: Find,
    ) -> None:
        at = datetime.now(UTC) - timedelta(seconds=1)
        stager = make()
        await stager.run_once()
        told = []

        async def commit() -> None:
            told.extend(await add(JobFactory(scheduled=True, scheduled_at=at)))
            stager.expect(at)

        # The pass has not seen the job, and ends behind it.
        with meanwhile(stager, commit):
            await stager.run_once()
        assert (await find(told[0])).state is S.SCHEDULED
        await stager.run_once()
        assert (await find(told[0])).state is S.AVAILABLE

    async def test_a_wake_during_the_first_pass_causes_a_pass_from_the_front(
        self, make: Callable[..., Stager], add: Add, find: Find
    ) -> None:
        """The first pass does not know the database's clock yet, so the news has no place."""
        stager = make()
        told = []
        at = datetime.now(UTC) - timedelta(hours=1)

        async def commit() -> None:
            told.extend(await add(JobFactory(scheduled=True, scheduled_at=at)))
            stager.expect(at)

        with meanwhile(stager, commit):
            assert await stager.run_once() == 0.0
        await stager.run_once()
        assert (await find(told[0])).state is S.AVAILABLE

    async def test_a_job_that_this_node_rescheduled_may_be_due_before_the_last_pass(
        self, make: Callable[..., Stager], add: Add, find: Find
    ) -> None:
        stager = make()
        now = datetime.now(UTC)
        await stager.run_once()
        (soon,) = await add(JobFactory(scheduled=True, scheduled_at=now))
        stager.expect_in(0.0)
        await stager.run_once()
        assert (await find(soon)).state is S.AVAILABLE
        stager.expect_in(1e12)

    @pytest.mark.parametrize("ask", [Stager.wake, lambda stager: None])
    async def test_after_lost_news_or_a_failure_a_pass_starts_at_the_front(
        self,
        make: Callable[..., Stager],
        add: Add,
        find: Find,
        monkeypatch: pytest.MonkeyPatch,
        ask: Callable[[Stager], None],
    ) -> None:
        stager = make()
        await stager.run_once()
        at = datetime.now(UTC) - timedelta(hours=1)
        (untold,) = await add(JobFactory(scheduled=True, scheduled_at=at))
        ask(stager)
        if ask is not Stager.wake:
            with monkeypatch.context() as patch:
                patch.setattr(RawStatement, "fetch", AsyncMock(side_effect=OSError("no answer")))
                with pytest.raises(OSError, match="no answer"):
                    await stager.run_once()
        await stager.run_once()
        assert (await find(untold)).state is S.AVAILABLE


async def test_a_locked_job_is_tried_again_soon(
    start: StartOban, add: Add, sessions: Sessions
) -> None:
    (id,) = await add(Quick.new(scheduled_at=datetime.now(UTC) - timedelta(hours=1)))
    async with sessions.begin() as other:
        await other.execute(select(Job.id).where(Job.id == id).with_for_update())
        oban = await start(queues={"default": 5}, **NEVER)
        with hear(oban, "job_start") as starts, hear(oban, "stage_stop") as passes:
            await passes.wait(3)
            # Other transactions go on meanwhile.
            await Quick.enqueue({}, conn=(other_session := sessions()), schedule_in=0)
            await other_session.commit()
            await starts.wait(1)
            await other.commit()
            await starts.wait(2)


async def test_a_job_committed_after_its_time_is_promoted(
    start: StartOban, sessions: Sessions
) -> None:
    oban = await start(queues={"default": 5}, **NEVER)
    with hear(oban, "job_start") as starts:
        async with sessions.begin() as session:
            await Quick.enqueue({}, conn=session, schedule_in=0)
            await session.flush()
            async with sessions.begin() as other:
                await Quick.enqueue({}, conn=other, schedule_in=0.001)
            # The pass that promotes the other job goes past the time of the first job.
            await starts.wait(1)
        await starts.wait(2)


async def test_infinite_times_stop_no_other_job(
    start: StartOban, add: Add, sessions: Sessions
) -> None:
    await add(JobFactory(scheduled=True), JobFactory(retryable=True))
    async with sessions.begin() as session:
        infinity = literal_column("'infinity'::timestamp")
        await session.execute(update(Job).values(scheduled_at=infinity))
    oban = await start(queues={"default": 5}, **NEVER)
    with hear(oban, "job_start") as starts:
        async with sessions.begin() as session:
            await Quick.enqueue({}, conn=session, schedule_in=SOON)
        await starts.wait()


@pytest.mark.parametrize("notify", ["listen", "poll"])
async def test_a_commit_in_this_process_wakes_the_stager(
    start: StartOban, sessions: Sessions, notify: str
) -> None:
    oban = await start(queues={"default": 5}, notify=notify, **NEVER)
    with hear(oban, "job_start") as starts:
        async with sessions.begin() as session:
            await Quick.enqueue({}, conn=session, schedule_in=SOON)
        (begun,) = await starts.wait()
    assert begun.job.attempted_at >= begun.job.scheduled_at


async def test_a_commit_elsewhere_wakes_the_stager(
    proxy: Proxy, start: StartOban, prefix: str, sessions: Sessions
) -> None:
    """To the node, the commit is at another address, like that of another process."""
    oban = await start(proxy.dsn, prefix=prefix, queues={"default": 5}, **NEVER)
    await until(lambda: services(oban).notifier.listening)
    with hear(oban, "job_start") as starts:
        async with sessions.begin() as session:
            await Quick.enqueue({}, conn=session, schedule_in=SOON)
        (begun,) = await starts.wait()
    assert begun.job.attempted_at >= begun.job.scheduled_at


async def test_a_later_job_does_not_delay_an_earlier_one(
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


async def test_a_job_that_is_expected_before_the_clock_is_known_causes_a_pass(
    make: Callable[..., Stager],
) -> None:
    stager = make()
    stager.expect(datetime.now(UTC) + timedelta(hours=1))
    assert stager._woken.is_set()


async def test_news_of_the_past_and_of_the_far_future_is_accepted(
    make: Callable[..., Stager],
) -> None:
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
