"""The example at the beginning of the README, run as a newcomer runs it."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from examples.stdlib_index import indexing
from examples.stdlib_index.models import Base

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "examples.stdlib_index", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.fixture
def indexed_dsn(database_dsn: str) -> str:
    """A database with a run over a few files."""
    ended = run("--dsn", database_dsn, "--files", "25")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return database_dsn


@pytest.mark.examples
def test_the_whole_library_is_indexed_and_checked() -> None:
    ended = run()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    _, paths = indexing.library_files()
    assert len(paths) > 500
    assert f"{len(paths):,} Python files" in ended.stdout
    assert f"{len(paths):,} finished" in ended.stdout
    assert f"{indexing.SCHEDULED} started" in ended.stdout
    assert "bad_coding.py: SyntaxError" in ended.stdout
    assert "checked" in ended.stdout


@pytest.mark.examples
def test_a_second_run_checks_only_its_own_files(indexed_dsn: str) -> None:
    ended = run("--dsn", indexed_dsn, "--files", "7")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "7 of 7" in ended.stdout


@pytest.mark.examples
def test_the_check_finds_changed_results(indexed_dsn: str) -> None:
    assert run("--dsn", indexed_dsn, "--check").returncode == 0
    with psycopg.connect(indexed_dsn) as connection:
        for statement in (
            "DELETE FROM index_definitions"
            " WHERE id = (SELECT min(id) FROM index_definitions WHERE file_id = 1)",
            "UPDATE oban_jobs SET state = 'executing' WHERE args @> '{\"file_id\": 2}'",
            "DELETE FROM oban_jobs WHERE args @> '{\"file_id\": 3}'",
            "INSERT INTO oban_jobs (state, queue, worker, args)"
            " SELECT state, queue, worker, args FROM oban_jobs WHERE args @> '{\"file_id\": 4}'",
            "DELETE FROM index_definitions WHERE file_id = 5",
            "DELETE FROM index_files WHERE id = 5",
        ):
            connection.execute(statement)
    ended = run("--dsn", indexed_dsn, "--check")
    assert ended.returncode == 1
    assert "where a direct parse finds" in ended.stdout
    assert "its job is executing" in ended.stdout
    assert "0 jobs instead of one" in ended.stdout
    assert "2 jobs instead of one" in ended.stdout
    assert "24 files are recorded, instead of 25" in ended.stdout
    assert "5 things are not as they should be" in ended.stdout
    assert "checked" not in ended.stdout


async def test_the_migration_makes_the_tables_of_the_models(database_dsn: str) -> None:
    def difference(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"include_name": is_ours})
        return list(compare_metadata(context, Base.metadata))

    def is_ours(name: str, kind: str, parents: object) -> bool:
        return kind != "table" or name in Base.metadata.tables

    engine = create_async_engine(make_url(database_dsn).set(drivername="postgresql+psycopg"))
    await indexing.install(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(difference) == []
    await engine.dispose()
