"""Claim: which jobs, in which order, and what it writes."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Executable, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from oban_sqla import Job, JobState
from oban_sqla.statements.acknowledge import Ack, outcomes
from oban_sqla.statements.claim import NONE_LEFT, acknowledge_and_claim, claim_of_queue
from tests.blocking import pid_of, until_blocked
from tests.conftest import Add
from tests.factories import JobFactory
from tests.statements.conftest import Find, Run

Claiming = Callable[..., Executable]
Claim = Callable[..., Awaitable[list[int]]]

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PAST = NOW - timedelta(hours=1)
PRODUCER = "0b3c5d8e-1111-4000-8000-000000000000"


def params(limit: int = 10, queue: str = "default", *acks: Ack) -> dict[str, Any]:
    return {
        **outcomes(acks),
        "queue_name": queue,
        "limit": limit,
        "node_name": "n1",
        "producer": PRODUCER,
    }


@pytest.fixture(params=[acknowledge_and_claim, claim_of_queue])
def claiming(request: pytest.FixtureRequest) -> Claiming:
    """With outcomes, though none are given, and without."""
    made: Claiming = request.param
    return made


@pytest.fixture
def claim(run: Run, claiming: Claiming) -> Claim:
    async def claim(limit: int = 10, queue: str = "default") -> list[int]:
        rows = await run(claiming(now=NOW), **params(limit, queue))
        return [row.id for row in rows if row.id is not None]

    return claim


async def test_by_priority_then_time_then_id(add: Add, claim: Claim) -> None:
    later, urgent, first, second, early = await add(
        JobFactory(priority=1, scheduled_at=PAST, state=JobState.AVAILABLE),
        JobFactory(priority=0, scheduled_at=NOW, state=JobState.AVAILABLE),
        JobFactory(priority=2, scheduled_at=PAST, state=JobState.AVAILABLE),
        JobFactory(priority=2, scheduled_at=PAST, state=JobState.AVAILABLE),
        JobFactory(priority=1, scheduled_at=PAST - timedelta(seconds=1), state=JobState.AVAILABLE),
    )
    assert await claim() == [urgent, early, later, first, second]


async def test_no_more_than_the_limit(add: Add, claim: Claim) -> None:
    ids = await add(*(JobFactory() for _ in range(5)))
    assert await claim(limit=0) == []
    assert await claim(limit=2) == ids[:2]
    assert await claim(limit=10) == ids[2:]
    assert await claim() == []


async def test_only_available_jobs_of_its_queue(add: Add, claim: Claim) -> None:
    (expected, *_) = await add(
        JobFactory(),
        JobFactory(queue="other"),
        JobFactory(scheduled=True),
        JobFactory(scheduled=True, scheduled_at=PAST),
        JobFactory(retryable=True),
        JobFactory(executing=True),
        JobFactory(completed=True),
        JobFactory(state=JobState.SUSPENDED),
    )
    assert await claim() == [expected]


async def test_what_it_writes_and_returns(
    add: Add, run: Run, find: Find, claiming: Claiming
) -> None:
    (id,) = await add(JobFactory(attempt=2, args={"a": 1}, tags=["t"], meta={"m": None}))
    (row,) = await run(claiming(now=NOW), **params())
    job = await find(id)
    assert (job.state, job.attempt, job.attempted_at) == (JobState.EXECUTING, 3, NOW)
    assert job.attempted_by == ["n1", PRODUCER, "oban_sqla"]
    assert job.errors == []
    columns = list(Job.__table__.columns.keys())
    assert tuple(row[1:]) == tuple(getattr(job, key) for key in columns)


async def test_the_clock_is_the_databases(
    add: Add, run: Run, find: Find, claiming: Claiming
) -> None:
    (id,) = await add(JobFactory())
    await run(claiming(), **params())
    job = await find(id)
    assert job.attempted_at is not None
    assert job.attempted_at >= job.inserted_at


async def test_a_job_with_no_attempt_left_is_discarded_with_a_reason(
    add: Add, run: Run, find: Find, claiming: Claiming
) -> None:
    spent, other = await add(JobFactory(attempt=20, attempted_by=["old"]), JobFactory())
    rows = await run(claiming(now=NOW), **params())
    states = [(row.id, row.state) for row in rows]
    assert states == [(spent, JobState.DISCARDED), (other, JobState.EXECUTING)]
    job = await find(spent)
    assert (job.attempt, job.discarded_at, job.attempted_at) == (20, NOW, None)
    assert job.attempted_by == ["old"]
    assert job.errors == [{"attempt": 20, "at": "2026-11-23T12:00:00.000000Z", "error": NONE_LEFT}]


async def test_what_was_cancelled_and_retried_is_not_cancelled_any_more(
    add: Add, run: Run, find: Find, claiming: Claiming
) -> None:
    """oban-py leaves the mark when it retries a job."""
    mark = {"cancel_attempted_at": "2026-11-23T11:00:00"}
    retried, other = await add(JobFactory(meta={"kept": 1} | mark), JobFactory(meta={"kept": 2}))
    rows = await run(claiming(now=NOW), **params())
    assert [row.meta for row in rows] == [{"kept": 1}, {"kept": 2}]
    assert (await find(retried)).meta == {"kept": 1}
    assert (await find(other)).meta == {"kept": 2}


async def test_jobs_that_another_claim_has_locked_are_left_to_it(
    add: Add, engine: AsyncEngine, claim: Claim, claiming: Claiming
) -> None:
    ids = await add(*(JobFactory() for _ in range(4)))
    async with engine.begin() as other:
        rows = await other.execute(claiming(now=NOW), params(2))
        assert [row.id for row in rows] == ids[:2]
        assert await claim() == ids[2:]
        await other.rollback()
    assert await claim() == ids[:2]


async def test_one_statement_acknowledges_and_claims(add: Add, run: Run, find: Find) -> None:
    executing, available = await add(JobFactory(executing=True, attempted_at=PAST), JobFactory())
    ack = Ack(executing, 1, PAST, JobState.COMPLETED)
    (row,) = await run(acknowledge_and_claim(now=NOW), **params(10, "default", ack))
    assert (row.acknowledged, row.id) == ([executing], available)
    assert (await find(executing)).completed_at == NOW
    (row,) = await run(acknowledge_and_claim(now=NOW), **params(10, "default", ack))
    assert (row.acknowledged, row.id) == (None, None)


async def test_outcomes_come_first_so_that_nothing_is_claimed_while_one_waits(
    add: Add, engine: AsyncEngine
) -> None:
    """Whoever has locked the one, and wants the other next, would wait in a circle."""
    executing, available = await add(JobFactory(executing=True, attempted_at=PAST), JobFactory())
    ack = Ack(executing, 1, PAST, JobState.COMPLETED)
    async with engine.connect() as other, engine.connect() as claiming:
        lock = select(Job.id).where(Job.id.in_([executing, available])).with_for_update()
        await other.execute(lock.where(Job.id == executing))
        pid = await pid_of(claiming)
        statement = claiming.execute(acknowledge_and_claim(now=NOW), params(10, "default", ack))
        running = asyncio.create_task(statement)
        await until_blocked(engine, pid)
        free = await other.scalars(lock.where(Job.id == available).with_for_update(nowait=True))
        assert free.all() == [available]
        await other.rollback()
        (row,) = await running
        assert (row.acknowledged, row.id) == ([executing], available)


async def test_a_job_can_be_claimed_by_core_alone(
    add: Add, connection: AsyncConnection, claiming: Claiming
) -> None:
    """Nothing of it needs a session: the columns come back in the order of the table."""
    await add(JobFactory())
    result = await connection.execute(claiming(now=NOW), params())
    assert list(result.keys()) == ["acknowledged", *Job.__table__.columns.keys()]
    assert len(result.all()) == 1
    assert await connection.scalar(select(Job.state)) == JobState.EXECUTING
