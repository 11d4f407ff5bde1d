"""Workers that note how many of them run, for the tests of limits."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Oban
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
