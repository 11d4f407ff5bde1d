"""The example that the README begins with, as a newcomer runs it."""

import subprocess
import sys
from pathlib import Path

import psycopg
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from examples.stdlib_index import report

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "examples.stdlib_index", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_file_is_indexed_and_checked(database_dsn: str) -> None:
    ended = run("--dsn", database_dsn, "--files", "60")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "60 of 60" in ended.stdout
    assert "checked" in ended.stdout
    assert ended.stderr == ""


async def test_the_check_finds_what_is_missing(database_dsn: str) -> None:
    assert run("--dsn", database_dsn, "--files", "20").returncode == 0
    with psycopg.connect(database_dsn) as connection:
        connection.execute("DELETE FROM index_definitions WHERE id = 1")
        connection.execute("UPDATE oban_jobs SET state = 'executing' WHERE id = 2")
        connection.execute("DELETE FROM oban_jobs WHERE id = 3")
    engine = create_async_engine(make_url(database_dsn).set(drivername="postgresql+psycopg"))
    async with async_sessionmaker(engine)() as session:
        wrong = await report.check(session, 1)
    await engine.dispose()
    assert len(wrong) == 3
    assert any("has 0 jobs instead of one" in complaint for complaint in wrong)
    assert any("but its job is executing" in complaint for complaint in wrong)
