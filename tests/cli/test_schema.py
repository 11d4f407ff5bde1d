"""`oban-sqla schema upgrade|downgrade|current`."""

import psycopg
import pytest

from oban_sqla.migrations import LATEST
from tests.cli.conftest import Cli, Completed


def tables(dsn: str, prefix: str) -> int:
    with psycopg.connect(dsn) as connection:
        query = "SELECT count(*) FROM pg_tables WHERE schemaname = %s"
        row = connection.execute(query, [prefix]).fetchone()
        assert row is not None
        return int(row[0])


def failed(done: Completed, code: int, message: str) -> None:
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    if code == 1:
        assert done.stderr.count("\n") == 1


def test_up_and_down(cli: Cli, postgres_dsn: str, new_prefix: str) -> None:
    where = ("--dsn", postgres_dsn, "--prefix", new_prefix)

    def say(*command: str) -> str:
        done = cli("schema", *command, *where)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    assert "not installed" in say("current")
    assert say("upgrade") == f"The schema is now at version {LATEST}.\n"
    assert say("upgrade") == f"The schema is at version {LATEST} already: nothing to do.\n"
    assert say("current") == f"The schema is at version {LATEST}: the latest.\n"
    assert tables(postgres_dsn, new_prefix) == 6
    assert say("downgrade", "--yes") == "The schema is not installed now.\n"
    assert say("downgrade") == "The schema is not installed: nothing to do.\n"
    assert tables(postgres_dsn, new_prefix) == 0


def test_the_dsn_from_the_environment(cli: Cli, postgres_dsn: str, new_prefix: str) -> None:
    done = cli("schema", "upgrade", "--prefix", new_prefix, "--version", "1", dsn=postgres_dsn)
    assert done.returncode == 0, done.stderr
    assert tables(postgres_dsn, new_prefix) == 4


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg", "postgresql+asyncpg"])
def test_other_spellings_of_the_dsn(cli: Cli, postgres_dsn: str, scheme: str) -> None:
    dsn = postgres_dsn.replace("postgresql", scheme, 1)
    assert cli("schema", "current", "--dsn", dsn, "--prefix", "no_such").returncode == 0


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 6), ("\n", 1, 6), ("", 1, 6)]
)
def test_downgrade_asks_first(
    cli: Cli, postgres_dsn: str, new_prefix: str, answer: str, code: int, left: int
) -> None:
    cli("schema", "upgrade", "--prefix", new_prefix, dsn=postgres_dsn)
    done = cli("schema", "downgrade", "--prefix", new_prefix, dsn=postgres_dsn, input=answer)
    assert done.returncode == code, done.stderr
    assert f"drops all jobs, with their tables, in schema '{new_prefix}' of" in done.stdout
    assert tables(postgres_dsn, new_prefix) == left


def test_a_newer_database(cli: Cli, postgres_dsn: str, new_prefix: str) -> None:
    cli("schema", "upgrade", "--prefix", new_prefix, dsn=postgres_dsn)
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(f"INSERT INTO {new_prefix}.oban_sqla_version VALUES ({LATEST + 1})")
    done = cli("schema", "current", "--prefix", new_prefix, dsn=postgres_dsn)
    assert f"version {LATEST + 1}: this oban-sqla knows versions up to {LATEST}" in done.stdout
    done = cli("schema", "upgrade", "--prefix", new_prefix, dsn=postgres_dsn)
    failed(done, 1, "install a newer oban_sqla")


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
def test_no_such_database(cli: Cli, command: str, dsn: str, message: str) -> None:
    done = cli("schema", command, "--dsn", dsn)
    failed(done, 1, message)
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
def test_usage(cli: Cli, arguments: list[str], message: str) -> None:
    failed(cli("schema", *arguments), 2, message)
