"""Attempts that take too long, and jobs that are cancelled while they run."""

import asyncio
import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Cancel, Job, JobState, JobTimeoutError, Worker, job, worker
from oban_sqla.doctor.examination import examine
from oban_sqla.migrations import LATEST
from oban_sqla.runtime import left_behind as left_behind_module
from oban_sqla.runtime import perform
from tests.conftest import StartOban, Tune
from tests.listening import PATIENCE, hear
from tests.runtime.conftest import until
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]


class Slow(Worker, name="timeouts.slow", timeout=0.02):
    async def process(self, job: Job) -> None:
        await asyncio.Event().wait()


class SlowByMethod(Worker, name="timeouts.method"):
    async def process(self, job: Job) -> None:
        await asyncio.Event().wait()

    def timeout(self, job: Job) -> timedelta:
        return timedelta(seconds=job.args["seconds"])


@job(name="timeouts.thread", timeout=lambda job: 0.02)
def slow_in_a_thread() -> None:
    released.wait(20)


released = threading.Event()


@pytest.mark.parametrize(
    "made", [Slow.new, lambda: SlowByMethod.new({"seconds": 0.02}), slow_in_a_thread.new]
)
async def test_an_attempt_beyond_its_timeout_fails(
    start: StartOban, sessions: Sessions, made
) -> None:
    released.clear()
    oban = await start(queues={"default": 1})
    with hear(oban, "job_exception") as failures, hear(oban, "ack_stop") as acks:
        await oban.enqueue(made())
        (failure,) = await failures.wait()
        await acks.counted(1)
    released.set()
    assert isinstance(failure.error, JobTimeoutError)
    assert "timed out after 0.02 s" in str(failure.error)
    async with sessions() as session:
        (stored,) = await session.scalars(select(Job))
    assert stored.state is JobState.RETRYABLE
    assert "JobTimeoutError" in stored.errors[0]["error"]


async def test_a_timeout_error_of_the_worker_is_an_ordinary_error(start: StartOban) -> None:
    @worker(name="timeouts.own", timeout=60)
    class Own:
        async def process(self, job: Job) -> None:
            raise TimeoutError("somebody else's")

    oban = await start(queues={"default": 1})
    with hear(oban, "job_exception") as failures:
        await oban.enqueue(Own.new())
        (failure,) = await failures.wait()
    assert not isinstance(failure.error, JobTimeoutError)


class Deaf(Worker, name="timeouts.deaf", timeout=0.02):
    """A worker that ignores its cancellation, and ends when the test says so."""

    async def process(self, job: Job) -> str:
        while True:
            try:
                await asyncio.wait_for(asyncio.Event().wait(), job.args["seconds"])
            except TimeoutError:
                return "late"
            except asyncio.CancelledError:
                continue


class Stuck(Worker, name="timeouts.stuck", max_attempts=1):
    """A plain function that may run past its timeout until the test releases it."""

    begun = 0
    released = threading.Event()

    def timeout(self, job: Job) -> float:
        return 0.05 if job.args.get("hangs") else PATIENCE

    def process(self, job: Job) -> None:
        type(self).begun += 1
        if job.args.get("hangs"):
            self.released.wait(PATIENCE)


async def test_a_worker_that_ignores_its_cancellation_is_left_behind(
    start: StartOban, sessions: Sessions, tune: Tune
) -> None:
    tune(perform, UNWINDING=0.01)
    oban = await start(queues={"default": 1})
    with hear(oban, "job_exception") as failures, hear(oban, "ack_stop") as acks:
        await oban.enqueue(Deaf.new({"seconds": 0.5}))
        (failure,) = await failures.wait()
        await acks.counted(1)
    assert "has not stopped 0.01 s later" in str(failure.error)
    assert await states(sessions) == [JobState.RETRYABLE]
    # It ends by itself, and takes a slot of its queue until then.
    left_behind = services(oban)._executor.left_behind
    assert left_behind.count("default") == 1
    await until(lambda: left_behind.count("default") == 0)


async def test_threads_left_behind_take_places_of_their_queue(
    start: StartOban,
    engine: AsyncEngine,
    sessions: Sessions,
    tune: Tune,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tune(left_behind_module, REPORTED_AFTER=0.05)
    oban = await start(queues={"default": 2, "other": 1}, heartbeat_expiry=5.0)
    with (
        hear(oban, "job_exception") as failures,
        hear(oban, "job_left_behind") as left,
        hear(oban, "job_stop") as stops,
    ):
        await oban.enqueue_many(Stuck.new({"hangs": n < 2}) for n in range(6))
        await failures.wait(2)
        await left.wait(2)
        # The other queue is not affected.
        await oban.enqueue(Stuck.new(queue="other"))
        await stops.wait(1)
        await services(oban).queues.report()
        found = [f async for f in examine(oban._database, oban._config, latest=LATEST)]
        (problem,) = [f for f in found if f.check == "threads"]
        assert "they take 2 of 2 slots: 1, 2" in problem.text
        assert (len(failures.events), Stuck.begun) == (2, 3)
        assert "(timeouts.stuck) has ended, but its thread or task still runs" in caplog.text
        Stuck.released.set()
        # The slots are free, so other jobs can start.
        await stops.wait(5)
    assert Stuck.begun == 7
    caplog.clear()


async def test_a_result_after_the_cancellation_counts(start: StartOban, sessions: Sessions) -> None:
    oban = await start(queues={"default": 1})
    with hear(oban, "ack_stop") as acks:
        await oban.enqueue(Deaf.new({"seconds": 0.05}))
        await acks.counted(1)
    assert await states(sessions) == [JobState.COMPLETED]


def cancel_own_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@job(name="cancel.itself")
async def cancels_itself(suspended: bool, fails: bool) -> None:
    if suspended:
        await asyncio.sleep(0)
    cancel_own_task()
    if fails:
        raise ValueError("as well")


class CancelsItself(Worker, name="cancel.itself_in_time", timeout=20.0):
    async def process(self, job: Job) -> None:
        cancel_own_task()


async def test_a_job_that_cancels_its_own_task_keeps_its_outcome(
    start: StartOban, sessions: Sessions
) -> None:
    oban = await start(queues={"default": 1})
    with hear(oban, "ack_stop") as acks:
        await oban.enqueue_many(
            cancels_itself.new(suspended=False, fails=False),
            cancels_itself.new(suspended=True, fails=False),
            cancels_itself.new(suspended=False, fails=True),
            CancelsItself.new(),
        )
        await acks.counted(4)
    completed, retryable = JobState.COMPLETED, JobState.RETRYABLE
    assert await states(sessions) == [completed, completed, retryable, completed]


async def states(sessions: Sessions) -> list[JobState]:
    async with sessions() as session:
        return list(await session.scalars(select(Job.state).order_by(Job.id)))


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), "soon"])
def test_an_invalid_timeout_is_refused_at_the_declaration(wrong: object) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout"):

        @worker(name="timeouts.wrong", timeout=wrong)  # type: ignore[arg-type]
        class Wrong:
            async def process(self, job: Job) -> None: ...


class Looking(Worker, name="cancel.looking"):
    async def process(self, job: Job) -> object:
        begun.set()
        while not job.cancelled():  # noqa: ASYNC110 - as users do
            await asyncio.sleep(0.001)
        return Cancel("as I was told")


class Interrupted(Worker, name="cancel.interrupted", interruptible=True):
    async def process(self, job: Job) -> None:
        begun.set()
        await asyncio.Event().wait()


begun = asyncio.Event()


@pytest.mark.parametrize("made", [Looking, Interrupted])
@pytest.mark.parametrize("notify", ["listen", "poll"])
async def test_a_running_job_learns_that_it_is_cancelled(
    start: StartOban,
    engine: AsyncEngine,
    prefix: str,
    sessions: Sessions,
    made: type[Worker],
    notify: str,
) -> None:
    global begun
    begun = asyncio.Event()
    oban = await start(queues={"default": 1}, notify=notify, poll_interval=0.02)
    with hear(oban, "ack_stop") as acks:
        stored = await oban.enqueue(made.new())
        await begun.wait()
        async with sessions.begin() as session:
            if notify == "poll":
                meta = {"cancel_attempted_at": "2026-11-01T12:00:00"}
                await session.execute(update(Job).values(meta=meta))
            else:
                await until(lambda: services(oban).notifier.listening)
                payload = f'{{"action": "pkill", "job_id": {stored.id}}}'
                await session.execute(select(func.pg_notify(f"{prefix}.oban_signal", payload)))
        await acks.counted(1)
    async with sessions() as session:
        (stored,) = await session.scalars(select(Job))
    assert stored.state is JobState.CANCELLED
    assert len(stored.errors) == 1


async def test_repeated_cancellations_interrupt_once(start: StartOban, sessions: Sessions) -> None:
    """The clean-up of its worker is not interrupted again."""
    cleaned = asyncio.Event()
    told = asyncio.Event()

    class Tidy(Worker, name="cancel.tidy", interruptible=True):
        async def process(self, job: Job) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                told.set()
                await asyncio.wait_for(goes_on.wait(), 20)
                cleaned.set()

    begun, goes_on = asyncio.Event(), asyncio.Event()
    oban = await start(queues={"default": 1})
    with hear(oban, "ack_stop") as acks:
        stored = await oban.enqueue(Tidy.new())
        await begun.wait()
        assert await oban.cancel_jobs(stored) == 1
        await told.wait()
        await oban.cancel_jobs(stored)
        services(oban).queues.cancel_job(stored.id)
        goes_on.set()
        await acks.counted(1)
    assert cleaned.is_set()
    assert await states(sessions) == [JobState.CANCELLED]
