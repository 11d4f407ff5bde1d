"""Each busy queue logs a line a minute."""

import asyncio
import gc
import logging
from collections.abc import Callable
from weakref import ref

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, JobState, Oban, Worker
from oban_sqla.contrib import activity
from oban_sqla.events import ClaimStop, JobDropped, JobException, JobStop, emit
from tests.conftest import StartOban, Tune
from tests.factories import JobFactory
from tests.listening import hear
from tests.runtime.conftest import until


class Slow(Worker, name="tests.activity.Slow", queue="reports"):
    """A worker that runs until it is released."""

    released: asyncio.Event

    async def process(self, job: Job) -> None:
        await self.released.wait()


@pytest.fixture
def oban(engine: AsyncEngine) -> Oban:
    return Oban(engine)


Told = Callable[[], list[str]]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, tune: Tune) -> Told:
    """The lines so far, with a short interval between them."""
    tune(activity, INTERVAL=0.02)
    caplog.set_level(logging.INFO, logger="oban_sqla.queues")
    return lambda: [r.message for r in caplog.records if r.name == "oban_sqla.queues"]


def run(oban: Oban, *ends: JobState, queue: str = "mailers") -> None:
    """Emit the events of a claim, and of the ends of its jobs."""
    emit(oban, "claim_stop", ClaimStop(queue, len(ends), (), 0.1))
    job = JobFactory(executing=True, queue=queue)
    for state in ends:
        if state in (JobState.RETRYABLE, JobState.DISCARDED):
            emit(oban, "job_exception", JobException(job, state, 0.1, 0.0, ValueError()))
        else:
            emit(oban, "job_stop", JobStop(job, state, 0.1, 0.0))


async def lines(told: Told, count: int) -> list[str]:
    await until(lambda: len(told()) >= count)
    return told()


async def test_a_line_says_how_the_jobs_ended(
    oban: Oban, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    run(oban, *[JobState.COMPLETED] * 1200, JobState.RETRYABLE, JobState.SCHEDULED)
    run(oban, JobState.DISCARDED, JobState.CANCELLED)
    emit(oban, "job_dropped", JobDropped(JobFactory(queue="mailers"), 0.1, 0.0))
    (line,) = await lines(told, 1)
    assert line == (
        "Oban: queue mailers: 1,200 completed, 1 failed, 1 discarded, 1 cancelled, 1 snoozed,"
        " 1 given back in the last 0 s; 0 running"
    )
    caplog.clear()  # the discarded job


async def test_a_job_that_runs_for_long_is_seen_again_and_again(
    start: StartOban, told: Told
) -> None:
    Slow.released = asyncio.Event()
    oban = await start(queues={"reports": 5, "mailers": 5})
    await oban.enqueue(Slow.new())
    first, second, *_ = await lines(told, 2)
    assert first == second == "Oban: queue reports: no job ended in the last 0 s; 1 running"
    Slow.released.set()
    await until(lambda: "1 completed" in told()[-1])
    # The queue is idle now, so it has no further line until a claim finds a job.
    count = len(told())
    with hear(oban, "job_stop") as stops:
        await oban.enqueue(Slow.new(queue="mailers"))
        await stops.wait()
    await until(lambda: "queue mailers: 1 completed" in told()[-1])
    assert not [line for line in told()[count:] if "reports" in line]


async def test_each_busy_queue_has_a_line(oban: Oban, told: Told) -> None:
    run(oban, JobState.COMPLETED)
    run(oban, JobState.COMPLETED, queue="reports")
    assert [line.split(": ")[1] for line in await lines(told, 2)] == [
        "queue mailers",
        "queue reports",
    ]


async def test_a_claim_without_jobs_sets_no_timer(
    oban: Oban, engine: AsyncEngine, told: Told
) -> None:
    run(oban)
    other = Oban(engine, name="other")
    run(other, JobState.COMPLETED)
    assert [line.split(": ")[0] for line in await lines(told, 1)] == ["other"]


def test_reports_go_on_in_another_event_loop(oban: Oban, told: Told, tune: Tune) -> None:
    async def work(wait: bool) -> None:
        run(oban, JobState.COMPLETED)
        if wait:
            await lines(told, 1)

    # The first event loop ends before its timer.
    tune(activity, INTERVAL=60.0)
    asyncio.run(work(wait=False))
    tune(activity, INTERVAL=0.02)
    asyncio.run(work(wait=True))
    assert "2 completed" in told()[0]


async def test_the_timer_keeps_no_instance_alive(engine: AsyncEngine) -> None:
    oban = Oban(engine)
    run(oban, JobState.COMPLETED)
    gone = ref(oban)
    del oban
    gc.collect()
    assert gone() is None
