"""Install on a connection, without an Alembic project."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from oban_sqla.errors import ObanError, SchemaVersionError
from oban_sqla.migrations import LATEST, current, downgrade, upgrade
from oban_sqla.models import metadata

TABLES = [
    "oban_jobs",
    "oban_leaders",
    "oban_producers",
    "oban_sqla_controls",
    "oban_sqla_cron",
    "oban_sqla_rates",
    "oban_sqla_starts",
    "oban_sqla_version",
    "oban_sqla_workflow_steps",
    "oban_workflows",
]
ALL = list(range(1, LATEST + 1))


def tables(connection: Connection, schema: str | None = None) -> list[str]:
    return sorted(inspect(connection).get_table_names(schema=schema))


def add_job(connection: Connection) -> None:
    connection.execute(text("INSERT INTO oban_jobs (worker) VALUES ('w')"))


def test_upgrade_and_downgrade_make_and_drop_the_tables(connection: Connection) -> None:
    assert current(connection) == 0
    assert upgrade(connection) == ALL
    assert current(connection) == LATEST
    assert tables(connection) == TABLES

    assert downgrade(connection, 0) == ALL[::-1]
    assert current(connection) == 0
    assert tables(connection) == []
    assert inspect(connection).get_enums() == []
    functions = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'oban%'"
    assert connection.scalar(text(functions)) == 0

    assert upgrade(connection) == ALL


def test_a_repeated_upgrade_does_nothing(connection: Connection) -> None:
    upgrade(connection)
    add_job(connection)
    assert upgrade(connection) == []
    assert downgrade(connection, LATEST) == []
    assert connection.scalar(text("SELECT count(*) FROM oban_jobs")) == 1


def test_a_downgrade_without_tables_does_nothing(connection: Connection) -> None:
    assert downgrade(connection, 0) == []


def test_the_tables_match_the_models(connection: Connection) -> None:
    upgrade(connection)
    options = {"compare_type": True, "compare_server_default": True}
    context = MigrationContext.configure(connection, opts=options)
    assert compare_metadata(context, metadata) == []


def test_an_upgrade_is_part_of_the_transaction_of_the_caller(engine: Engine) -> None:
    with engine.connect() as connection:
        upgrade(connection)
        connection.rollback()
        assert tables(connection) == []
    with engine.begin() as connection:
        upgrade(connection)
    with engine.connect() as connection:
        assert current(connection) == LATEST


def test_a_failed_upgrade_leaves_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE oban_jobs (id int)")
        )  # a table of another application
    with pytest.raises(ProgrammingError, match="state"), engine.begin() as connection:
        upgrade(connection)
    with engine.connect() as connection:
        assert tables(connection) == ["oban_jobs"]
        assert inspect(connection).get_enums() == []


async def test_an_async_connection_can_upgrade(database_dsn: str) -> None:
    engine = create_async_engine(
        database_dsn.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool
    )
    async with engine.begin() as connection:
        assert await connection.run_sync(upgrade, prefix="jobs") == ALL
    async with engine.connect() as connection:
        assert await connection.run_sync(current, prefix="jobs") == LATEST


@pytest.mark.parametrize("prefix", [None, "jobs"])
def test_concurrent_upgrades_work(engine: Engine, prefix: str | None) -> None:
    together = Barrier(6)

    def install(_: int) -> list[int]:
        with engine.begin() as connection:
            together.wait()
            return upgrade(connection, prefix=prefix)

    with ThreadPoolExecutor(6) as threads:
        done = list(threads.map(install, range(6)))
    assert sorted(done) == [[]] * 5 + [ALL]


@pytest.mark.parametrize(
    "prefix", ["jobs", "jobs.v1", "select", "odd \"%(x)s :name '; --", "$do$$function$"]
)
def test_the_prefix_names_the_schema(connection: Connection, prefix: str) -> None:
    assert upgrade(connection, prefix=prefix) == ALL
    assert upgrade(connection, prefix=prefix) == []
    assert current(connection, prefix=prefix) == LATEST
    assert current(connection) == 0
    assert tables(connection) == []
    assert tables(connection, prefix) == TABLES
    assert [enum["name"] for enum in inspect(connection).get_enums(prefix)] == ["oban_job_state"]

    assert downgrade(connection, 0, prefix=prefix) == ALL[::-1]
    assert tables(connection, prefix) == []
    assert prefix in inspect(connection).get_schema_names()


def test_schemas_are_independent(connection: Connection) -> None:
    for prefix in (None, "one", "two"):
        assert upgrade(connection, prefix=prefix) == ALL
    downgrade(connection, 0, prefix="one")
    assert current(connection, prefix="one") == 0
    assert current(connection, prefix="two") == current(connection) == LATEST


@pytest.mark.parametrize("prefix", [None, "jobs"])
def test_the_count_estimate_finds_its_tables(connection: Connection, prefix: str | None) -> None:
    connection.execute(text("CREATE SCHEMA jobs"))
    connection.execute(text("SET search_path TO jobs"))
    upgrade(connection, prefix=prefix)
    connection.execute(
        text("INSERT INTO oban_jobs (worker) SELECT 'w' FROM generate_series(1, 1000)")
    )
    connection.execute(text("ANALYZE oban_jobs"))
    connection.execute(text("SET search_path TO public"))
    estimate = text("SELECT jobs.oban_count_estimate('available', 'default')")
    assert connection.scalar(estimate) == 1000


def test_an_existing_schema_needs_no_privilege_to_create_one(connection: Connection) -> None:
    role = "oban_migrations_owner"
    connection.execute(text(f"CREATE ROLE {role}"))
    connection.execute(text(f"CREATE SCHEMA jobs AUTHORIZATION {role}"))
    connection.execute(text(f"SET ROLE {role}"))
    assert upgrade(connection, prefix="jobs") == ALL
    connection.rollback()  # roles belong to the server, so drop this one


def test_a_newer_version_of_the_database_is_refused(connection: Connection) -> None:
    upgrade(connection)
    connection.execute(text(f"INSERT INTO oban_sqla_version VALUES ({LATEST + 1})"))
    assert current(connection) == LATEST + 1
    for change in (upgrade, lambda connection: downgrade(connection, 0)):
        with pytest.raises(SchemaVersionError, match="install a newer oban_sqla") as caught:
            change(connection)
        assert isinstance(caught.value, ObanError)
    assert tables(connection) == TABLES


@pytest.mark.parametrize("version", [0, -1, LATEST + 1, "1"])
def test_an_unknown_version_to_upgrade_to_is_refused(connection: Connection, version: Any) -> None:
    with pytest.raises(ValueError, match=f"version must be from 1 to {LATEST}, got {version!r}"):
        upgrade(connection, version=version)


@pytest.mark.parametrize("version", [-1, LATEST + 1, None])
def test_an_unknown_version_to_downgrade_to_is_refused(
    connection: Connection, version: Any
) -> None:
    with pytest.raises(ValueError, match=f"version must be from 0 to {LATEST}, got {version!r}"):
        downgrade(connection, version)
