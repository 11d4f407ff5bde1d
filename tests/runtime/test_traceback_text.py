"""Stored tracebacks begin with the user's frames."""

import re
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from oban_sqla import Job, Worker, job
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.executor import Executor
from oban_sqla.runtime.traceback_text import describe
from oban_sqla.statements.acknowledge import Ack
from tests.attempts import NOWHERE
from tests.claimed import claimed


class Fails(Worker, name="traceback.fails"):
    async def process(self, job: Job) -> None:
        inner()


class FailsPlainly(Worker, name="traceback.fails_plainly"):
    def process(self, job: Job) -> None:
        inner()


class FailsInSession(Worker, name="traceback.fails_in_session"):
    async def process(self, job: Job, session: AsyncSession) -> None:
        inner()


class FailsPlainlyInSession(Worker, name="traceback.fails_plainly_in_session"):
    def process(self, job: Job, session: Session) -> None:
        inner()


@job(name="traceback.function")
async def fails() -> None:
    inner()


class Misuses(Worker, name="traceback.misuses"):
    async def process(self, job: Job) -> None:
        Fails.new(priority=50)


class Chains(Worker, name="traceback.chains"):
    async def process(self, job: Job) -> None:
        try:
            Fails.new(priority=50)
        except ValueError as error:
            raise LookupError("no such thing") from error


def inner() -> None:
    raise LookupError("no such thing")


async def error_of(worker: str, database: Any = NOWHERE) -> str:
    executor = Executor(database, lambda name, data: None)
    ack = await executor.execute(claimed(worker), lambda: False)
    assert isinstance(ack, Ack)
    assert ack.error is not None
    return ack.error


def files(error: str) -> list[str]:
    """The file names of the frames, with `...` for folded frames."""
    found = re.findall(
        r'^  (?:File "(?:.*/)?([^/"]*)"|(\.\.\.) \d+ frames? of oban_sqla)', error, re.M
    )
    return [file or folded for file, folded in found]


@pytest.mark.parametrize(
    "worker",
    ["fails", "fails_plainly", "fails_in_session", "fails_plainly_in_session", "function"],
)
async def test_a_traceback_begins_with_the_frames_of_the_user(
    worker: str, engine: AsyncEngine
) -> None:
    error = await error_of(f"traceback.{worker}", Database(engine, None))
    assert error.startswith("Traceback (most recent call last):\n  ... ")
    assert files(error) == ["...", "test_traceback_text.py", "test_traceback_text.py"]
    assert error.endswith("LookupError: no such thing\n")


async def test_our_frames_further_down_are_one_line(engine: AsyncEngine) -> None:
    error = await error_of("traceback.misuses")
    assert files(error) == ["...", "test_traceback_text.py", "..."]
    assert "ValueError: priority must be" in error


async def test_each_exception_of_a_chain_is_folded() -> None:
    error = await error_of("traceback.chains")
    assert files(error) == ["test_traceback_text.py", "...", "...", "test_traceback_text.py"]


async def test_frames_of_other_libraries_are_kept(engine: AsyncEngine) -> None:
    try:
        async with AsyncSession(engine) as session:
            await session.execute(text("SELECT nothing"))
    except Exception as raised:
        error = describe(raised)
    assert "/sqlalchemy/" in error
    assert "of oban_sqla" not in error


def test_an_exception_without_frames_has_a_text() -> None:
    assert describe(ValueError("boom")) == "ValueError: boom\n"


def test_groups_and_circular_contexts_have_a_text() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    error = describe(ExceptionGroup("both", [first, second]))
    assert "ExceptionGroup: both" in error
    assert "first" in error
