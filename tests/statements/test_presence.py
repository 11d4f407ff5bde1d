"""Status: the rows in the tables, by any program."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import create_async_engine

from oban_sqla import Job, JobState
from oban_sqla.dsn import database_url
from oban_sqla.migrations import upgrade
from oban_sqla.models import LeaderLease, ProducerRow
from oban_sqla.statements.counts import counts
from oban_sqla.statements.presence import leaders, producers
from tests.conftest import Add
from tests.factories import JobFactory
from tests.statements.conftest import Run

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
# The name of a node of ours in the lease.
OURS = "n/0123456789ab"


async def counted(run: Run, prefix: str, exact: int = 50_000) -> dict[tuple[str, str], int]:
    rows = await run(counts(prefix=prefix, exact=exact, now=NOW))
    return {(row.state, row.queue): row.count for row in rows}


async def test_an_empty_table_has_no_counts(run: Run, prefix: str) -> None:
    assert await counted(run, prefix) == {}


async def test_jobs_are_counted_by_state_and_queue(run: Run, add: Add, prefix: str) -> None:
    for queue, priority in (("a", 0), ("a", 9), ("b", 3)):
        await add(
            *(JobFactory(queue=queue, priority=priority) for _ in range(3)),
            JobFactory(queue=queue, priority=priority, completed=True),
        )
    await add(JobFactory(queue="c", scheduled=True))
    assert await counted(run, prefix) == {
        ("available", "a"): 6,
        ("completed", "a"): 2,
        ("available", "b"): 3,
        ("completed", "b"): 1,
        ("scheduled", "c"): 1,
    }


async def test_counts_beyond_the_limit_are_estimated(run: Run, add: Add, prefix: str) -> None:
    await add(*(JobFactory(queue="a") for _ in range(50)), JobFactory(queue="b"))
    await run(text(f'ANALYZE "{prefix}".oban_jobs'))
    rows = await run(counts(prefix=prefix, exact=20))
    assert [(row.queue, row.estimated) for row in rows] == [("a", True), ("b", False)]
    assert 21 <= rows[0].count <= 60
    # An older estimate must not be less than the counted jobs.
    await add(*(JobFactory(queue="c") for _ in range(30)))
    rows = await run(counts(prefix=prefix, exact=20))
    assert [(row.queue, row.count) for row in rows][1:] == [("b", 1), ("c", 21)]


async def test_the_age_of_the_oldest_available_job_is_read(run: Run, add: Add, prefix: str) -> None:
    def since(minutes: int, **options: Any) -> Job:
        when = NOW - timedelta(minutes=minutes)
        job: Job = JobFactory(scheduled_at=when, state=JobState.AVAILABLE, **options)
        return job

    await add(
        since(1, queue="a", priority=0),
        since(5, queue="a", priority=4),
        since(3, queue="a", priority=4),
        since(2, queue="b"),
        JobFactory(queue="b", executing=True),
    )
    rows = await run(counts(prefix=prefix, exact=10, now=NOW))
    assert [(row.queue, row.state, row.waits) for row in rows] == [
        ("a", "available", 300.0),
        ("b", "available", 120.0),
        ("b", "executing", None),
    ]


async def test_an_unknown_state_is_counted(database_dsn: str) -> None:
    engine = create_async_engine(database_url(database_dsn))
    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TYPE oban_job_state ADD VALUE 'held'"))
    async with engine.begin() as connection:
        await connection.execute(insert(Job).values(worker="w"))
        await connection.execute(text("UPDATE oban_jobs SET state = 'held'"))
        for exact in (10, 0):
            rows = (await connection.execute(counts(prefix="public", exact=exact))).all()
            assert [(row.state, row.count, row.estimated) for row in rows] == [
                ("held", 1, exact == 0)
            ]
    await engine.dispose()


async def test_producers_are_read_with_their_queues(run: Run, add: Add) -> None:
    uuid = uuid4()
    await run(
        insert(ProducerRow).values(
            uuid=uuid,
            node="n1",
            queue="a",
            meta={"local_limit": 5, "paused": True},
            updated_at=NOW - timedelta(seconds=20),
        )
    )
    jobs = [JobFactory(queue="a", executing=True) for _ in range(3)]
    for job in jobs[:2]:
        job.attempted_by = ["n1", str(uuid), "oban_sqla"]
    await add(*jobs)
    (row,) = await run(producers(now=NOW))
    assert (row.name, row.node, row.queue, row.uuid) == ("oban", "n1", "a", str(uuid))
    assert (row.meta, row.silent_for, row.running) == (
        '{"paused": true, "local_limit": 5}',
        20.0,
        2,
    )


async def test_leaders_are_read(run: Run) -> None:
    for name, seconds in (("a", 10), ("b", -10)):
        until = NOW + timedelta(seconds=seconds)
        await run(
            insert(LeaderLease).values(name=name, node=OURS, elected_at=NOW, expires_at=until)
        )
    rows = await run(leaders(now=NOW))
    assert [(row.name, row.node, row.expires_in) for row in rows] == [
        ("a", OURS, 10.0),
        ("b", OURS, -10.0),
    ]
