"""Stage: promote due jobs, and return when the next one is due."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import delete, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, JobState
from oban_sqla.statements.stage import Position, behind, stage
from tests.conftest import Add
from tests.factories import JobFactory
from tests.statements.conftest import Find, Run

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
S = JobState


def due(ago: float = 0.0, **fields: Any) -> Job:
    return JobFactory(scheduled=True, scheduled_at=NOW - timedelta(seconds=ago), **fields)


async def test_jobs_due_by_the_given_clock_are_promoted(add: Add, run: Run, find: Find) -> None:
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


async def test_the_databases_clock_decides_what_is_due(add: Add, run: Run) -> None:
    before = datetime.now(UTC).timestamp()
    await add(JobFactory(scheduled=True))  # due in an hour
    (row,) = await run(stage(), batch=100)
    assert row.staged == 0
    assert row.queues is None
    assert abs(row.now - before) < 60
    assert 0 < row.next_in <= 3600


async def test_the_oldest_jobs_of_a_batch_are_promoted(add: Add, run: Run, find: Find) -> None:
    ids = await add(due(1), due(3), due(2))
    (row,) = await run(stage(now=NOW), batch=2)
    assert row.staged == 2
    assert [(await find(id)).state for id in ids] == [S.SCHEDULED, S.AVAILABLE, S.AVAILABLE]


async def test_the_time_of_the_next_job_is_returned(add: Add, run: Run) -> None:
    (row,) = await run(stage(now=NOW), batch=10)
    assert (row.staged, row.next_in) == (0, None)
    assert row.now == NOW.timestamp()
    await add(
        due(5), due(-90), JobFactory(retryable=True, scheduled_at=NOW + timedelta(seconds=2.5))
    )
    (row,) = await run(stage(now=NOW), batch=10)
    assert (row.staged, row.next_in) == (1, 2.5)


async def test_each_queue_is_returned_once(add: Add, run: Run) -> None:
    await add(due(queue="a"), due(queue="b"), due(queue="a"), due(-9, queue="c"))
    (row,) = await run(stage(now=NOW), batch=10)
    assert sorted(row.queues) == ["a", "b"]


async def test_locked_jobs_are_skipped(add: Add, run: Run, find: Find, engine: AsyncEngine) -> None:
    locked, free = await add(due(2), due(1))
    async with engine.begin() as other:
        await other.execute(select(Job.id).where(Job.id == locked).with_for_update())
        (row,) = await run(stage(now=NOW), batch=10)
        assert row.staged == 1
    assert (await find(free)).state is S.AVAILABLE
    (row,) = await run(stage(now=NOW), batch=10)
    assert row.staged == 1


async def test_a_pass_starts_behind_a_position(add: Add, run: Run, find: Find) -> None:
    ids = await add(due(3), due(2), due(2), due(1))
    position = Position(NOW - timedelta(seconds=2), ids[1])
    (row,) = await run(stage(now=NOW), batch=10, **behind(position))
    assert (row.staged, row.last_at, row.last_id) == (2, NOW - timedelta(seconds=1), ids[3])
    states = [(await find(id)).state for id in ids]
    assert states == [S.SCHEDULED, S.SCHEDULED, S.AVAILABLE, S.AVAILABLE]


async def test_the_next_batch_starts_behind_the_last_job(add: Add, run: Run) -> None:
    """Many jobs of one instant are ordered by their ids."""
    ids = await add(*(due(1) for _ in range(5)))
    (row,) = await run(stage(now=NOW), batch=3)
    assert (row.first, row.last_id) == (3, ids[2])
    (row,) = await run(stage(now=NOW), batch=3, **behind(Position(row.last_at, row.last_id)))
    assert (row.first, row.last_id) == (2, ids[4])


class TestShares:
    async def test_each_queue_and_priority_gets_a_share(
        self, add: Add, run: Run, find: Find
    ) -> None:
        await add(*(due(9, queue="a", priority=3) for _ in range(6)))
        others = await add(
            *(due(1, queue="b") for _ in range(3)),
            due(1, queue="a", priority=0),
            due(1, queue="a", priority=9),
            due(1, queue="not running here"),
            due(-1, queue="b", priority=1),
            JobFactory(retryable=True, queue="b", scheduled_at=NOW),
        )
        statement = stage(now=NOW, shared=True)
        (row,) = await run(statement, batch=4, sharing=["a", "b", "idle"], share=2)
        # Two of the first four are the share of their own queue and priority.
        assert (row.first, row.staged, row.skipped) == (4, 4 + 2 + 1 + 1 + 1, False)
        assert sorted(row.queues) == ["a", "b"]
        states = [(await find(id)).state is S.AVAILABLE for id in others]
        assert states == [True, True, False, True, True, False, False, True]

    async def test_shares_start_behind_the_position(self, add: Add, run: Run) -> None:
        ids = await add(due(1, queue="a"), due(1, queue="a"), due(1, queue="b"))
        (row,) = await run(
            stage(now=NOW, shared=True),
            batch=1,
            sharing=["a", "b"],
            share=5,
            **behind(Position(NOW - timedelta(seconds=1), ids[0])),
        )
        assert row.staged == 2


@pytest.mark.parametrize("shared", [False, True])
async def test_infinite_times_and_times_beyond_python_are_handled(
    add: Add, run: Run, find: Find, shared: bool
) -> None:
    ids = await add(*(due(1, queue="a") for _ in range(5)))
    for id, at in zip(ids, ["infinity", "-infinity", "0044-03-15 BC", "20000-01-01"], strict=False):
        instant = literal_column(f"'{at}'::timestamp")
        await run(update(Job).where(Job.id == id).values(scheduled_at=instant))
    params = {"sharing": ["a"], "share": 1} if shared else {}
    (row,) = await run(stage(now=NOW, shared=shared), batch=1, **params)
    assert (row.first, row.last_at) == (1, None)
    assert row.next_in > 1e9
    (row,) = await run(
        stage(now=NOW, shared=shared), batch=9, **params, **behind(Position(None, row.last_id))
    )
    assert row.first == 2
    states = (await run(select(Job.id, Job.state)),)
    assert {id for id, state in states[0] if state is S.SCHEDULED} == {ids[0], ids[3]}
    await run(delete(Job).where(Job.id == ids[3]))
    (row,) = await run(stage(now=NOW, shared=shared), batch=9, **params)
    assert (row.staged, row.next_in, row.skipped) == (0, None, False)


async def test_skipped_jobs_are_reported(add: Add, run: Run, engine: AsyncEngine) -> None:
    ids = await add(*(due(9 - n) for n in range(6)))
    async with engine.begin() as other:
        await other.execute(select(Job.id).where(Job.id == ids[2]).with_for_update())
        # The locked job comes after the first two.
        (row,) = await run(stage(now=NOW), batch=2)
        assert (row.staged, row.skipped) == (2, False)
        (row,) = await run(stage(now=NOW), batch=2)
        assert (row.staged, row.last_id, row.skipped) == (2, ids[4], True)
        (row,) = await run(stage(now=NOW), batch=9)
        assert (row.staged, row.skipped) == (1, True)
        (row,) = await run(stage(now=NOW), batch=9)
        assert (row.staged, row.skipped) == (0, True)
        (row,) = await run(stage(now=NOW), batch=9, **behind(Position(NOW, ids[5])))
        assert (row.staged, row.skipped) == (0, False)


async def test_a_pass_does_not_read_entries_of_promoted_jobs(
    engine: AsyncEngine, postgres_dsn: str, new_schema: str
) -> None:
    """While another transaction is open, the entries of promoted jobs stay in the index."""
    async with engine.connect() as other:
        await other.execute(select(func.pg_current_xact_id()))
        async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as server:
            jobs = sql.Identifier(new_schema, "oban_jobs")
            await server.execute(
                sql.SQL(
                    "INSERT INTO {} (worker, state, scheduled_at)"
                    " SELECT 'w', 'scheduled', '2026-11-23 11:00' FROM generate_series(1, 5000)"
                ).format(jobs)
            )
            await _buffers(server, new_schema, batch=5000)
            walked = await _buffers(server, new_schema, batch=5000)
            position = Position(NOW - timedelta(hours=1), 5000)
            behind_them = await _buffers(server, new_schema, batch=5000, **behind(position))
    assert walked > 100 > 20 > behind_them


async def test_due_jobs_are_not_sorted_in_a_table_that_was_never_analyzed(
    postgres_dsn: str, new_schema: str
) -> None:
    """The planner expects a few due jobs, and there may be hundreds of thousands."""
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as server:
        await server.execute(
            sql.SQL(
                "INSERT INTO {} (worker, state, scheduled_at)"
                " SELECT 'w', 'scheduled', '2026-11-23 11:00' FROM generate_series(1, 20000)"
            ).format(sql.Identifier(new_schema, "oban_jobs"))
        )
        compiled = stage(now=NOW, prefix=new_schema).compile(
            dialect=psycopg_dialect.dialect(),
            schema_translate_map={None: new_schema},
            render_schema_translate=True,
        )
        query = f"EXPLAIN (COSTS OFF) {compiled}".encode()
        cursor = await server.execute(query, {**compiled.params, "batch": 1000})
        plan = "\n".join([line for (line,) in await cursor.fetchall()])
    assert "Sort Key: oban_jobs.scheduled_at" not in plan, plan


async def _buffers(server: psycopg.AsyncConnection, prefix: str, **params: Any) -> int:
    """The number of pages that a pass reads."""
    compiled = stage(now=NOW, prefix=prefix).compile(
        dialect=psycopg_dialect.dialect(),
        schema_translate_map={None: prefix},
        render_schema_translate=True,
    )
    query = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiled}".encode()
    await server.execute("SET enable_seqscan = off")
    # The driver passes instants with their time zone; the types of the engine would convert them.
    await server.execute("SET TIME ZONE 'UTC'")
    cursor = await server.execute(query, {**compiled.params, **params})
    (((found,),),) = await cursor.fetchall()
    return int(found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"])


async def test_each_queue_is_notified_once(
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
