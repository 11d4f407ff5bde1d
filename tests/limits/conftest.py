"""Workers that note how many of them run, for the tests of limits."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import bindparam, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, Oban
from tests.conftest import StartOban
from tests.limits.workers import Holding


@pytest.fixture(autouse=True)
def holding() -> Iterator[None]:
    """Begin without running jobs, and let none run on after the test."""
    Holding.reset()
    yield
    Holding.release_all()


@pytest.fixture
async def start(start: StartOban) -> AsyncIterator[StartOban]:
    """`start`, with instances that don't wait at their end for jobs that the test holds."""
    yield start
    Holding.release_all()


@pytest.fixture
def client(engine: AsyncEngine, prefix: str) -> Oban:
    """An instance that runs no queues, and gives orders."""
    return Oban(engine, prefix=prefix)


async def many(engine: AsyncEngine, job: Job, count: int, **columns: Any) -> None:
    """Insert this number of jobs like one, in one statement."""
    like = {"worker": job.worker, "queue": job.queue, "args": job.args, "meta": job.meta} | columns
    values = [
        bindparam(name, value, Job.__table__.c[name].type).label(name)
        for name, value in like.items()
    ]
    numbers = func.generate_series(1, count).table_valued("number")
    async with engine.begin() as connection:
        rows = select(*values).select_from(numbers)
        await connection.execute(insert(Job.__table__).from_select([*like], rows))
