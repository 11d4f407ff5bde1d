"""The example that the README begins with, as a newcomer runs it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from examples.stdlib_index import report

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dsn(postgres_dsn: str) -> Iterator[str]:
    """An empty database."""
    name = f"stdlib_index_{uuid4().hex[:8]}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield make_url(postgres_dsn).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "examples.stdlib_index", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_file_is_indexed_and_checked(dsn: str) -> None:
    ended = run("--dsn", dsn, "--files", "60")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "60 of 60" in ended.stdout
    assert "checked" in ended.stdout
    assert ended.stderr == ""


async def test_the_check_finds_what_is_missing(dsn: str) -> None:
    assert run("--dsn", dsn, "--files", "20").returncode == 0
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM index_definitions WHERE id = 1")
        connection.execute("UPDATE oban_jobs SET state = 'executing' WHERE id = 2")
        connection.execute("DELETE FROM oban_jobs WHERE id = 3")
    engine = create_async_engine(make_url(dsn).set(drivername="postgresql+psycopg"))
    async with async_sessionmaker(engine)() as session:
        wrong = await report.check(session, 1)
    await engine.dispose()
    assert len(wrong) == 3
    assert any("has 0 jobs instead of one" in complaint for complaint in wrong)
    assert any("but its job is executing" in complaint for complaint in wrong)
