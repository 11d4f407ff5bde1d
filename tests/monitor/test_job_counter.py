"""The job counter: its counts, its listeners, and its interval."""

import math

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, Oban
from oban_sqla.events import JobsCounted
from oban_sqla.monitor.job_counter import INTERVAL, JobCounter
from oban_sqla.runtime.database import Database
from tests.conftest import Add, StartOban
from tests.factories import JobFactory
from tests.listening import hear


@pytest.fixture
def told() -> list[JobsCounted]:
    return []


@pytest.fixture
async def counter(engine: AsyncEngine, prefix: str, told: list[JobsCounted]) -> JobCounter:
    database = Database(engine, prefix)
    await database.verify()
    return JobCounter(
        database,
        lambda name, data: told.append(data),  # type: ignore[arg-type]
        is_leader=lambda: True,
        listened=lambda name: True,
    )


async def test_the_counter_counts_by_queue_and_state(
    counter: JobCounter, told: list[JobsCounted], add: Add
) -> None:
    await add(Job("a.B"), Job("a.B"), Job("a.B", queue="mailers"), JobFactory(scheduled=True))
    assert await counter.run_once() == INTERVAL
    (counted,) = told
    assert counted.counts == {
        ("default", "available"): 2,
        ("default", "scheduled"): 1,
        ("mailers", "available"): 1,
    }
    assert counted.oldest_available.keys() == {"default", "mailers"}
    assert 0 <= counted.oldest_available["default"] < 60
    assert not counted.estimated


async def test_the_counter_counts_seldom_however_often_it_is_woken(
    counter: JobCounter, told: list[JobsCounted]
) -> None:
    await counter.run_once()
    assert 0 < await counter.run_once() <= INTERVAL
    assert len(told) == 1


@pytest.mark.parametrize(
    ("leads", "listened", "waits"), [(False, True, math.inf), (True, False, INTERVAL)]
)
async def test_without_listeners_the_counter_reads_nothing(
    leads: bool, listened: bool, waits: float, engine: AsyncEngine
) -> None:
    # Without tables, a query would fail.
    counter = JobCounter(
        Database(engine, "nowhere"),
        lambda name, data: None,
        is_leader=lambda: leads,
        listened=lambda name: listened,
    )
    assert await counter.run_once() == waits


async def test_the_leader_counts_while_there_are_listeners(start: StartOban) -> None:
    with hear(Oban, "jobs_counted") as counts:
        oban = await start(queues={"default": 1})
        await counts.wait()
    assert oban.is_leader
