"""Stage: promote what is due, and say what comes next."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, JobState
from oban_sqla.statements.stage import stage
from tests.conftest import Add
from tests.factories import JobFactory
from tests.statements.conftest import Find, Run

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
S = JobState


def due(ago: float = 0.0, **fields: Any) -> Job:
    return JobFactory(scheduled=True, scheduled_at=NOW - timedelta(seconds=ago), **fields)


async def test_what_is_due_by_the_given_clock(add: Add, run: Run, find: Find) -> None:
    ids = await add(
        due(0),
        due(0.000001),
        JobFactory(retryable=True, scheduled_at=NOW - timedelta(days=1)),
        due(-0.000001),
        JobFactory(state=S.SUSPENDED, scheduled_at=NOW - timedelta(days=1)),
        JobFactory(completed=True, scheduled_at=NOW - timedelta(days=1)),
        JobFactory(executing=True, scheduled_at=NOW - timedelta(days=1)),
    )
    (row,) = await run(stage(now=NOW), batch=100)
    assert (row.staged, row.queues) == (3, ["default"])
    states = [(await find(id)).state for id in ids]
    assert states == [*[S.AVAILABLE] * 3, S.SCHEDULED, S.SUSPENDED, S.COMPLETED, S.EXECUTING]
    assert (await find(ids[2])).attempt == 1
    assert (await find(ids[2])).scheduled_at == NOW - timedelta(days=1)


async def test_by_the_databases_clock(add: Add, run: Run) -> None:
    before = datetime.now(UTC).timestamp()
    await add(JobFactory(scheduled=True))  # in an hour
    (row,) = await run(stage(), batch=100)
    assert row.staged == 0
    assert row.queues is None
    assert abs(row.now - before) < 60
    assert 0 < row.next_in <= 3600


async def test_the_oldest_first_and_no_more_than_a_batch(add: Add, run: Run, find: Find) -> None:
    ids = await add(due(1), due(3), due(2))
    (row,) = await run(stage(now=NOW), batch=2)
    assert row.staged == 2
    assert [(await find(id)).state for id in ids] == [S.SCHEDULED, S.AVAILABLE, S.AVAILABLE]


async def test_when_the_next_is_due(add: Add, run: Run) -> None:
    (row,) = await run(stage(now=NOW), batch=10)
    assert (row.staged, row.next_in) == (0, None)
    assert row.now == NOW.timestamp()
    await add(
        due(5), due(-90), JobFactory(retryable=True, scheduled_at=NOW + timedelta(seconds=2.5))
    )
    (row,) = await run(stage(now=NOW), batch=10)
    assert (row.staged, row.next_in) == (1, 2.5)


async def test_each_queue_once(add: Add, run: Run) -> None:
    await add(due(queue="a"), due(queue="b"), due(queue="a"), due(-9, queue="c"))
    (row,) = await run(stage(now=NOW), batch=10)
    assert sorted(row.queues) == ["a", "b"]


async def test_jobs_that_another_has_locked_are_left_to_it(
    add: Add, run: Run, find: Find, engine: AsyncEngine
) -> None:
    locked, free = await add(due(2), due(1))
    async with engine.begin() as other:
        await other.execute(select(Job.id).where(Job.id == locked).with_for_update())
        (row,) = await run(stage(now=NOW), batch=10)
        assert row.staged == 1
    assert (await find(free)).state is S.AVAILABLE
    (row,) = await run(stage(now=NOW), batch=10)
    assert row.staged == 1


async def test_it_notifies_each_queue_once(
    add: Add, run: Run, postgres_dsn: str, prefix: str
) -> None:
    await add(due(queue="a"), due(queue="a"), due(queue="b"))
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as listener:
        channel = sql.Identifier(f"{prefix}.oban_insert")
        await listener.execute(sql.SQL("LISTEN {}").format(channel))
        await run(stage(now=NOW, prefix=prefix), batch=10)
        await listener.execute("SELECT pg_notify(%s, 'end')", [f"{prefix}.oban_insert"])
        heard = []
        async with asyncio.timeout(20):
            async for notification in listener.notifies():
                if notification.payload == "end":
                    break
                heard.append(notification.payload)
    assert sorted(heard) == ['{"queue" : "a"}', '{"queue" : "b"}']
