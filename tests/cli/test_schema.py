"""`oban-sqla schema upgrade|downgrade|current`."""

from typing import Any

import psycopg
import pytest
from typer.testing import Result

from oban_sqla.migrations import LATEST
from oban_sqla.migrations.versions import TABLES
from tests.cli.conftest import Say

ALL = len(TABLES)


def tables(dsn: str, prefix: str) -> int:
    with psycopg.connect(dsn) as connection:
        query = "SELECT count(*) FROM pg_tables WHERE schemaname = %s"
        row = connection.execute(query, [prefix]).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def new(call: Say, postgres_dsn: str, new_prefix: str) -> Say:
    """Run `oban-sqla schema` for a PostgreSQL schema that does not exist yet."""

    def new(*arguments: str, **options: Any) -> Result:
        where = ("--dsn", postgres_dsn, "--prefix", new_prefix)
        return call("schema", *arguments, *where, **options)

    return new


def test_upgrade_and_downgrade_change_the_schema(
    new: Say, postgres_dsn: str, new_prefix: str
) -> None:
    def say(*command: str) -> str:
        done = new(*command)
        assert done.stderr.count("\n") <= 1  # the name of the database
        return done.stdout

    assert "not installed" in say("current")
    assert say("upgrade") == f"The schema is now at version {LATEST}.\n"
    assert say("upgrade") == f"The schema is at version {LATEST} already: nothing to do.\n"
    assert say("current") == f"The schema is at version {LATEST}: the latest.\n"
    assert tables(postgres_dsn, new_prefix) == ALL
    assert say("downgrade", "--yes") == "The schema is not installed now.\n"
    assert say("downgrade") == "The schema is not installed: nothing to do.\n"
    assert tables(postgres_dsn, new_prefix) == 0


def test_the_environment_gives_the_dsn(
    call: Say, monkeypatch: pytest.MonkeyPatch, postgres_dsn: str, new_prefix: str
) -> None:
    monkeypatch.setenv("OBAN_DSN", postgres_dsn)
    call("schema", "upgrade", "--prefix", new_prefix, "--version", "1")
    assert tables(postgres_dsn, new_prefix) == 4


def test_dropped_parts_are_named_and_repaired(new: Say, postgres_dsn: str, new_prefix: str) -> None:
    new("upgrade")
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(f"DROP TABLE {new_prefix}.oban_sqla_cron")
    assert "table oban_sqla_cron is missing: `oban-sqla schema upgrade`" in new("current").stdout
    assert "Go on?" in new("downgrade", code=1, input="n\n").stdout
    assert new("upgrade").stdout == f"The schema is now at version {LATEST}.\n"
    assert "the latest" in new("current").stdout


def test_upgrade_names_the_session_that_it_waits_for(
    new: Say, postgres_dsn: str, new_prefix: str
) -> None:
    new("upgrade", "--version", "1")
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(f"SELECT FROM {new_prefix}.oban_jobs")
        waited = new("upgrade", "--wait", "0.2", code=1)
    assert "waited 0.2 s for a lock" in waited.stderr
    assert f"SELECT FROM {new_prefix}.oban_jobs" in waited.stderr


def test_grant_gives_a_role_its_privileges(new: Say, postgres_dsn: str, new_prefix: str) -> None:
    new("upgrade")
    assert "no role was named" in new("grant", code=1).stderr
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE web_{new_prefix}")
        try:
            said = new("grant", "--enqueue", f"web_{new_prefix}").stdout
            assert said == f"May enqueue jobs: web_{new_prefix}.\n"
            asked = "SELECT has_table_privilege(%s, %s, 'INSERT')"
            granted = connection.execute(asked, [f"web_{new_prefix}", f"{new_prefix}.oban_jobs"])
            assert granted.fetchone() == (True,)
        finally:
            connection.execute(f"DROP OWNED BY web_{new_prefix}")
            connection.execute(f"DROP ROLE web_{new_prefix}")
    said = new("grant", "--run", "no_such_role", code=1).stderr
    assert said.endswith('oban-sqla: role "no_such_role" does not exist\n')


def test_args_index_makes_and_drops_the_index(new: Say, postgres_dsn: str, new_prefix: str) -> None:
    def indexes() -> int:
        with psycopg.connect(postgres_dsn) as connection:
            query = "SELECT count(*) FROM pg_indexes WHERE schemaname = %s AND indexname LIKE %s"
            row = connection.execute(query, [new_prefix, "%args_contain%"]).fetchone()
            assert row is not None
            return int(row[0])

    new("upgrade")
    assert new("args-index").stdout == "The index on the arguments of jobs is ready.\n"
    assert indexes() == 1
    assert new("args-index", "--drop").stdout == "The index on the arguments of jobs is dropped.\n"
    assert indexes() == 0


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg", "postgresql+asyncpg"])
def test_other_spellings_of_the_dsn_are_accepted(call: Say, postgres_dsn: str, scheme: str) -> None:
    dsn = postgres_dsn.replace("postgresql", scheme, 1)
    call("schema", "current", "--dsn", dsn, "--prefix", "no_such")


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, ALL), ("\n", 1, ALL), ("", 1, ALL)]
)
def test_downgrade_asks_first(
    new: Say, postgres_dsn: str, new_prefix: str, answer: str, code: int, left: int
) -> None:
    new("upgrade")
    done = new("downgrade", code=code, input=answer)
    assert f"drops all jobs, with their tables, in schema '{new_prefix}' of" in done.stdout
    assert tables(postgres_dsn, new_prefix) == left


def test_a_database_of_a_newer_version_is_refused(
    new: Say, postgres_dsn: str, new_prefix: str
) -> None:
    new("upgrade")
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(f"INSERT INTO {new_prefix}.oban_sqla_version VALUES ({LATEST + 1})")
    newer = f"version {LATEST + 1}: this oban-sqla knows versions up to {LATEST}"
    assert newer in new("current").stdout
    assert "install a newer oban_sqla" in new("upgrade", code=1).stderr


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        ("postgresql://localhost:1/app", "connection to server at"),
        ("mysql://localhost/app", "must start with postgresql://, not mysql://"),
        ("postgresql+pg8000://localhost/app", "a driver that is not installed"),
        ("host=localhost password=secret", "the DSN is not a URL of the form postgresql://"),
    ],
)
@pytest.mark.parametrize("command", ["upgrade", "downgrade", "current"])
def test_a_missing_database_is_named(call: Say, command: str, dsn: str, message: str) -> None:
    done = call("schema", command, "--dsn", dsn, code=1)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["upgrade"], "--dsn"),
        (["upgrade", "--dsn", "postgresql:///x", "--version", "0"], "--version"),
        (["downgrade", "--dsn", "postgresql:///x", "--version", "99"], "--version"),
        (["sideways"], "sideways"),
    ],
)
def test_wrong_usage_is_reported(call: Say, arguments: list[str], message: str) -> None:
    assert message in call("schema", *arguments, code=2).stderr
