"""The project's own Alembic history, in alembic/versions."""

import os
from collections.abc import Callable

import pytest
from pytest_alembic.tests import (  # noqa: F401 - pytest collects them
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import Connection, inspect, text

from tests.forked import ROOT, Completed, Python

TABLES = {
    "oban_jobs",
    "oban_leaders",
    "oban_producers",
    "oban_sqla_controls",
    "oban_sqla_cron",
    "oban_sqla_version",
}


Alembic = Callable[..., Completed]


@pytest.fixture
def alembic(python: Python) -> Alembic:
    """Run `alembic` at the root of the project, with `dsn` as OBAN_DSN."""
    environment = {key: value for key, value in os.environ.items() if key != "OBAN_DSN"}

    def alembic(*arguments: str, dsn: str | None = None) -> Completed:
        named = {} if dsn is None else {"OBAN_DSN": dsn}
        return python.run("-m", "alembic", *arguments, cwd=ROOT, env=environment | named)

    return alembic


@pytest.mark.parametrize("prefix", [None, "jobs", 'odd "%(x)s :name'])
def test_the_commands_of_alembic_work(
    alembic: Alembic, database_dsn: str, connection: Connection, prefix: str | None
) -> None:
    options = [] if prefix is None else ["-x", f"prefix={prefix}"]

    def run(*command: str) -> str:
        done = alembic(*options, *command, dsn=database_dsn)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("upgrade", "head")
    run("upgrade", "head")
    assert "No new upgrade operations" in run("check")
    assert "(head)" in run("current")
    assert set(inspect(connection).get_table_names(schema=prefix)) > TABLES
    if prefix is not None:
        assert inspect(connection).get_table_names() == []

    run("downgrade", "base")
    left = inspect(connection).get_table_names(schema=prefix)
    assert left == ["oban_sqla_alembic_version"]
    assert inspect(connection).get_enums(schema=prefix) == []


def test_check_reports_a_difference(
    alembic: Alembic, database_dsn: str, connection: Connection
) -> None:
    assert alembic("upgrade", "head", dsn=database_dsn).returncode == 0
    with connection.begin():
        connection.execute(text("ALTER TABLE oban_jobs DROP COLUMN tags"))
    done = alembic("check", dsn=database_dsn)
    assert done.returncode != 0
    assert "oban_jobs" in done.stdout + done.stderr


def test_an_application_has_its_own_tables_and_history(
    alembic: Alembic, database_dsn: str, connection: Connection
) -> None:
    with connection.begin():
        connection.execute(text("CREATE TABLE users (id int)"))
        connection.execute(text("CREATE TABLE alembic_version (version_num text)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
    assert alembic("upgrade", "head", dsn=database_dsn).returncode == 0
    assert alembic("check", dsn=database_dsn).returncode == 0
    assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "theirs"


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        (None, "no database was named: set OBAN_DSN, or pass -x dsn="),
        ("mysql://localhost/app", "must start with postgresql://, not mysql://"),
        ("host=localhost dbname=app", "the DSN is not a URL of the form postgresql://"),
        ("postgresql://localhost:1/app", "no connection to the database"),
    ],
)
def test_a_missing_or_invalid_dsn_is_reported(
    alembic: Alembic, dsn: str | None, message: str
) -> None:
    done = alembic("current", dsn=dsn)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_option_gives_the_dsn(alembic: Alembic, database_dsn: str) -> None:
    done = alembic("-x", f"dsn={database_dsn}", "upgrade", "head", dsn="postgresql://localhost:1/x")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("prefix", [None, "jobs"])
def test_offline_scripts_can_be_run(
    alembic: Alembic, database_dsn: str, connection: Connection, prefix: str | None
) -> None:
    options = [] if prefix is None else ["-x", f"prefix={prefix}"]
    # The offline mode needs no database. Run its script, as a DBA would.
    script = alembic(*options, "upgrade", "head", "--sql").stdout
    connection.connection.driver_connection.execute(script)  # type: ignore[union-attr]
    connection.rollback()
    assert "No new upgrade operations" in alembic(*options, "check", dsn=database_dsn).stdout

    script = alembic(*options, "downgrade", "head:base", "--sql").stdout
    connection.connection.driver_connection.execute(script)  # type: ignore[union-attr]
    connection.rollback()
    assert inspect(connection).get_table_names(schema=prefix) == ["oban_sqla_alembic_version"]
