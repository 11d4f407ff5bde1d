"""Tables that oban-py installed are adopted with their jobs. Then both libraries use them."""

from collections.abc import AsyncIterator

import oban as oban_py
import pytest
from oban.schema import install, uninstall
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from oban_sqla import SchemaMissingError
from oban_sqla.dsn import database_url
from oban_sqla.migrations import LATEST, current, downgrade, upgrade
from tests.beside_oban.conftest import StartTheirs, Table
from tests.beside_oban.workers import OURS, THEIRS, Ours, Script, Theirs
from tests.conftest import StartOban

pytestmark = pytest.mark.oban

Sessions = async_sessionmaker[AsyncSession]
THERE = text("SELECT to_regprocedure('public.oban_count_estimate(text, text)') IS NOT NULL")


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[AsyncConnectionPool]:
    """A pool on an empty database, instead of the one with our tables."""
    async with AsyncConnectionPool(database_dsn, min_size=1, max_size=10, open=False) as pool:
        yield pool


@pytest.fixture
async def engine(database_dsn: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url(database_dsn))
    yield engine
    await engine.dispose()


@pytest.fixture
def prefix() -> str:
    return "public"


@pytest.fixture
def table(database_dsn: str) -> Table:
    return Table(database_dsn, "public")


async def test_tables_of_oban_py_are_adopted_with_their_jobs(
    pool: AsyncConnectionPool,
    client: oban_py.Oban,
    engine: AsyncEngine,
    start: StartOban,
    start_theirs: StartTheirs,
    table: Table,
) -> None:
    await install(pool)
    kept = [
        Theirs.new(tags=["a"], meta={"k": [1]}, priority=2),
        Theirs.new({"do": "fail", "times": 1}),
        Theirs.new(scheduled_in=3600),
    ]
    await client.enqueue_many(kept)
    node = await start_theirs(queues={"shared": 1}, node=THEIRS)
    await table.until({"completed": 1, "retryable": 1, "scheduled": 1})
    await node.stop()
    before = await table.query("SELECT * FROM {oban_jobs} ORDER BY id")

    # The error names the missing part and a remedy. Nothing was changed.
    with pytest.raises(SchemaMissingError, match="oban-sqla schema upgrade"):
        await start(queues={"shared": 1})

    async with engine.begin() as connection:
        assert await connection.run_sync(upgrade) == list(range(1, LATEST + 1))
    assert await table.query("SELECT * FROM {oban_jobs} ORDER BY id") == before

    await table.an_hour_later()
    await start(queues={"shared": 1}, node=OURS)
    await table.until({"completed": 3})
    assert [side for side, _ in Script.ran] == [THEIRS] * 2 + [OURS] * 2
    assert await table.query("SELECT DISTINCT attempt FROM {oban_jobs} WHERE id = 2") == [
        {"attempt": 2}
    ]


async def test_an_oban_py_node_runs_jobs_during_an_upgrade(
    pool: AsyncConnectionPool,
    client: oban_py.Oban,
    engine: AsyncEngine,
    start_theirs: StartTheirs,
    table: Table,
) -> None:
    """A node of oban-py runs jobs before, during and after the upgrade to our tables."""
    await install(pool)
    await start_theirs()
    await client.enqueue_many(Theirs.new({"do": "yield"}) for _ in range(200))
    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
    await client.enqueue_many(Theirs.new() for _ in range(10))
    await table.until({"completed": 210})
    assert {side for side, _ in Script.ran} == {THEIRS}


async def test_installing_oban_py_over_our_tables_changes_nothing(
    pool: AsyncConnectionPool,
    client: oban_py.Oban,
    engine: AsyncEngine,
    start: StartOban,
    table: Table,
) -> None:
    """A deployment of oban-py may install its tables again."""
    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
    await client.enqueue(Theirs.new())
    await install(pool)
    async with engine.connect() as connection:
        assert await connection.run_sync(current) == LATEST
    await start(queues={"shared": 1})
    await table.until({"completed": 1})
    assert [side for side, _ in Script.ran] == [OURS]


@pytest.mark.parametrize("installed_again", [True, False])
async def test_an_upgrade_repairs_tables_that_oban_py_uninstalled(
    pool: AsyncConnectionPool,
    client: oban_py.Oban,
    engine: AsyncEngine,
    start: StartOban,
    table: Table,
    installed_again: bool,
) -> None:
    """oban-py drops its own tables, but leaves our table of versions, which says that the schema is
    complete.
    """
    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
    await uninstall(pool)
    if installed_again:
        await install(pool)
    async with engine.begin() as connection:
        assert await connection.run_sync(current) < LATEST
        await connection.run_sync(upgrade)
        assert await connection.run_sync(current) == LATEST
    ours = await start(queues={"shared": 1})
    for conflict in (False, True):
        job = await ours.enqueue(Ours.new({"n": 1}, unique=True))
        assert job.conflict is conflict
    await client.enqueue(Theirs.new())
    await table.until({"completed": 2})


@pytest.mark.parametrize("prefixes", [["jobs"], ["jobs", "others"], ['"odd schema"', "jobs"]])
async def test_metrics_of_oban_py_find_the_count_estimate_of_each_schema(
    pool: AsyncConnectionPool, engine: AsyncEngine, prefixes: list[str]
) -> None:
    """oban-py calls the function without a schema, whatever the schema of its tables is."""
    for count, prefix in enumerate(prefixes, 1):
        async with engine.begin() as connection:
            await connection.run_sync(upgrade, prefix=prefix.strip('"'))
        theirs = oban_py.Oban(pool=pool, prefix=prefix, name=prefix)
        async with theirs._connection() as connection:  # type: ignore[attr-defined]
            await connection.execute(
                f"INSERT INTO {prefix}.oban_jobs (worker, queue)"
                f" SELECT 'w', 'shared' FROM generate_series(1, {count * 1000})"
            )
            await connection.execute(
                f"INSERT INTO {prefix}.oban_producers (uuid, node, queue)"
                " VALUES (gen_random_uuid(), 'n', 'shared')"
            )
            await connection.commit()
            await connection.execute(f"ANALYZE {prefix}.oban_jobs")
        found = await theirs._query.estimate_counts(["available"])
        assert found == [("available", "shared", count * 1000)]


async def test_the_count_estimate_is_installed_for_a_schema_of_the_search_path(
    engine: AsyncEngine,
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA jobs"))
        await connection.execute(text("SET LOCAL search_path TO jobs"))
        await connection.run_sync(upgrade)
    async with engine.connect() as connection:
        assert await connection.scalar(THERE)


async def test_the_count_estimate_is_dropped_with_the_last_schema(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        for prefix in ("one", "two"):
            await connection.run_sync(upgrade, prefix=prefix)
        await connection.run_sync(downgrade, 0, prefix="one")
        assert await connection.scalar(THERE)
        await connection.run_sync(downgrade, 0, prefix="two")
        assert not await connection.scalar(THERE)
