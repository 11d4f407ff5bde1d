"""Claim: the chosen jobs, their order, and the changes."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from oban_sqla import Job, JobState, UnreadableJobError
from oban_sqla.models.job import COLUMNS
from oban_sqla.statements.claim import FRONT, NONE_LEFT, claim_of_queue
from oban_sqla.statements.claimed import Claimed
from tests.conftest import Add
from tests.factories import JobFactory
from tests.statements.conftest import Find, Run

Claim = Callable[..., Awaitable[list[int]]]

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PAST = NOW - timedelta(hours=1)
PRODUCER = "0b3c5d8e-1111-4000-8000-000000000000"


def params(limit: int = 10, queue: str = "default", after: Job | None = None) -> dict[str, Any]:
    position = FRONT
    if after is not None:
        position = {
            "after_priority": after.priority,
            "after_scheduled_at": after.scheduled_at,
            "after_id": after.id,
        }
    return {
        **position,
        "queue_name": queue,
        "limit": limit,
        "node_name": "n1",
        "producer": PRODUCER,
    }


@pytest.fixture
def claim(run: Run) -> Claim:
    async def claim(limit: int = 10, queue: str = "default") -> list[int]:
        rows = await run(claim_of_queue(now=NOW), **params(limit, queue))
        return [row.id for row in rows if row.id is not None]

    return claim


async def test_jobs_are_claimed_by_priority_then_time_then_id(add: Add, claim: Claim) -> None:
    later, urgent, first, second, early = await add(
        JobFactory(priority=1, scheduled_at=PAST, state=JobState.AVAILABLE),
        JobFactory(priority=0, scheduled_at=NOW, state=JobState.AVAILABLE),
        JobFactory(priority=2, scheduled_at=PAST, state=JobState.AVAILABLE),
        JobFactory(priority=2, scheduled_at=PAST, state=JobState.AVAILABLE),
        JobFactory(priority=1, scheduled_at=PAST - timedelta(seconds=1), state=JobState.AVAILABLE),
    )
    assert await claim() == [urgent, early, later, first, second]


async def test_no_more_jobs_are_claimed_than_the_limit(add: Add, claim: Claim) -> None:
    ids = await add(*(JobFactory() for _ in range(5)))
    assert await claim(limit=0) == []
    assert await claim(limit=2) == ids[:2]
    assert await claim(limit=10) == ids[2:]
    assert await claim() == []


async def test_only_available_jobs_of_the_queue_are_claimed(add: Add, claim: Claim) -> None:
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


async def test_a_claim_changes_and_returns_the_columns(add: Add, run: Run, find: Find) -> None:
    (id,) = await add(JobFactory(attempt=2, args={"a": 1}, tags=["t"], meta={"m": None}))
    (row,) = await run(claim_of_queue(now=NOW), **params())
    job = await find(id)
    assert (job.state, job.attempt, job.attempted_at) == (JobState.EXECUTING, 3, NOW)
    assert job.attempted_by == ["n1", PRODUCER, "oban_sqla"]
    assert job.errors == []
    found = Claimed(row).job(json.loads)
    assert all(getattr(found, key) == getattr(job, key) for key in COLUMNS)


async def test_the_clock_of_the_database_decides(add: Add, run: Run, find: Find) -> None:
    (id,) = await add(JobFactory())
    await run(claim_of_queue(), **params())
    job = await find(id)
    assert job.attempted_at is not None
    assert job.attempted_at >= job.inserted_at


async def test_a_job_with_no_attempt_left_is_discarded_with_a_reason(
    add: Add, run: Run, find: Find
) -> None:
    spent, other = await add(JobFactory(attempt=20, attempted_by=["old"]), JobFactory())
    rows = await run(claim_of_queue(now=NOW), **params())
    states = [(row.id, row.state) for row in rows]
    assert states == [(spent, JobState.DISCARDED), (other, JobState.EXECUTING)]
    job = await find(spent)
    assert (job.attempt, job.discarded_at, job.attempted_at) == (20, NOW, None)
    assert job.attempted_by == ["old"]
    assert job.errors == [{"attempt": 20, "at": "2026-11-23T12:00:00.000000Z", "error": NONE_LEFT}]


async def test_a_job_cancelled_and_retried_is_not_cancelled_any_more(
    add: Add, run: Run, find: Find
) -> None:
    """oban-py leaves the mark of a cancellation when it retries a job."""
    mark = {"cancel_attempted_at": "2026-11-23T11:00:00"}
    retried, other = await add(JobFactory(meta={"kept": 1} | mark), JobFactory(meta={"kept": 2}))
    rows = await run(claim_of_queue(now=NOW), **params())
    assert [json.loads(row.meta) for row in rows] == [{"kept": 1}, {"kept": 2}]
    assert (await find(retried)).meta == {"kept": 1}
    assert (await find(other)).meta == {"kept": 2}


async def test_jobs_that_another_claim_has_locked_are_skipped(
    add: Add, engine: AsyncEngine, claim: Claim
) -> None:
    ids = await add(*(JobFactory() for _ in range(4)))
    async with engine.begin() as other:
        rows = await other.execute(claim_of_queue(now=NOW), params(2))
        assert [row.id for row in rows] == ids[:2]
        assert await claim() == ids[2:]
        await other.rollback()
    assert await claim() == ids[:2]


async def test_a_claim_starts_behind_a_position(add: Add, run: Run, find: Find) -> None:
    first, _, late, other, better = await add(
        *(
            JobFactory(priority=priority, scheduled_at=at, state=JobState.AVAILABLE)
            for priority, at in (
                (1, PAST),
                (1, PAST - timedelta(seconds=1)),
                (1, NOW),
                (2, PAST - timedelta(days=1)),
                (0, NOW),
            )
        ),
    )
    rows = await run(claim_of_queue(now=NOW), **params(after=await find(first)))
    assert [row.id for row in rows] == [late, other]
    rows = await run(claim_of_queue(now=NOW), **params(1))
    assert [row.id for row in rows] == [better]


async def test_jobs_that_rows_being_inserted_refer_to_are_claimed(
    add: Add, engine: AsyncEngine, claim: Claim
) -> None:
    """A foreign key locks the job until the transaction of the insert ends."""
    (id,) = await add(JobFactory())
    async with engine.begin() as other:
        await other.execute(select(Job.id).with_for_update(read=True, key_share=True))
        assert await claim() == [id]


UNREADABLE = {
    "inserted_at": "'20000-01-01'",
    "scheduled_at": "'-infinity'",
    "completed_at": "'infinity'",
    "cancelled_at": "'0044-03-15 BC'",
}


@pytest.mark.parametrize("column", UNREADABLE)
async def test_an_instant_that_python_can_not_hold_fails_that_job_alone(
    add: Add, run: Run, column: str
) -> None:
    odd, other = await add(JobFactory(), JobFactory())
    beyond = literal_column(f"TIMESTAMP {UNREADABLE[column]}")
    await run(update(Job).where(Job.id == odd).values({column: beyond}))
    rows = {row.id: row for row in await run(claim_of_queue(now=NOW), **params())}
    assert Claimed(rows[other]).job(json.loads).id == other
    with pytest.raises(UnreadableJobError, match=f"the column {column} of job {odd} can't be read"):
        Claimed(rows[odd]).job(json.loads)
    assert Claimed(rows[odd]).readable_job().worker == "tests.Nobody"


async def test_a_job_can_be_claimed_by_core_alone(add: Add, connection: AsyncConnection) -> None:
    """No session is needed: the columns come back in the order of the table."""
    await add(JobFactory())
    result = await connection.execute(claim_of_queue(now=NOW), params())
    assert list(result.keys()) == [*COLUMNS, "unreadable"]
    assert len(result.all()) == 1
    assert await connection.scalar(select(Job.state)) == JobState.EXECUTING
