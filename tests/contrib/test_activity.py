"""Each busy queue logs a line a minute."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import JobState, Oban
from oban_sqla.contrib import activity
from oban_sqla.events import JobException, JobStart, JobStop, emit
from tests.conftest import Tune
from tests.factories import JobFactory
from tests.runtime.conftest import until

JOB = JobFactory(executing=True, queue="mailers")
SLOW = JobFactory(executing=True, queue="reports")


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


def run(oban: Oban, *ends: JobState) -> None:
    for state in ends:
        emit(oban, "job_start", JobStart(JOB))
        if state in (JobState.RETRYABLE, JobState.DISCARDED):
            emit(oban, "job_exception", JobException(JOB, state, 0.1, 0.0, ValueError()))
        else:
            emit(oban, "job_stop", JobStop(JOB, state, 0.1, 0.0))


async def lines(told: Told, count: int) -> list[str]:
    await until(lambda: len(told()) >= count)
    return told()


async def test_it_says_how_the_jobs_ended(
    oban: Oban, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    run(oban, *[JobState.COMPLETED] * 1200, JobState.RETRYABLE, JobState.SCHEDULED)
    run(oban, JobState.DISCARDED, JobState.CANCELLED)
    (line,) = await lines(told, 1)
    assert line == (
        "Oban: queue mailers: 1,200 completed, 1 failed, 1 discarded, 1 cancelled, 1 snoozed in the"
        " last 0 s; 0 running"
    )
    caplog.clear()  # the discarded job


async def test_a_job_that_runs_for_long_is_seen_again_and_again(oban: Oban, told: Told) -> None:
    emit(oban, "job_start", JobStart(SLOW))
    first, second, *_ = await lines(told, 2)
    assert first == second == "Oban: queue reports: no job ended in the last 0 s; 1 running"
    emit(oban, "job_stop", JobStop(SLOW, JobState.COMPLETED, 0.1, 0.0))
    await until(lambda: "1 completed" in told()[-1])


async def test_an_idle_queue_says_nothing(oban: Oban, told: Told) -> None:
    run(oban, JobState.COMPLETED)
    await lines(told, 1)
    emit(oban, "job_start", JobStart(SLOW))
    idle = [line for line in await lines(told, 4) if "mailers" in line]
    assert len(idle) == 1
    emit(oban, "job_stop", JobStop(SLOW, JobState.COMPLETED, 0.1, 0.0))


async def test_each_busy_queue_has_a_line(oban: Oban, told: Told) -> None:
    run(oban, JobState.COMPLETED)
    emit(oban, "job_start", JobStart(SLOW))
    emit(oban, "job_stop", JobStop(SLOW, JobState.COMPLETED, 0.1, 0.0))
    assert [line.split(": ")[1] for line in await lines(told, 2)] == [
        "queue mailers",
        "queue reports",
    ]


def test_in_another_event_loop_it_goes_on(oban: Oban, told: Told) -> None:
    async def work(wait: bool) -> None:
        run(oban, JobState.COMPLETED)
        if wait:
            await lines(told, 1)

    asyncio.run(work(wait=False))
    asyncio.run(work(wait=True))
    assert "2 completed" in told()[0]


def test_without_an_event_loop_nothing_fails(oban: Oban, told: Told) -> None:
    run(oban, JobState.COMPLETED)
    assert told() == []
