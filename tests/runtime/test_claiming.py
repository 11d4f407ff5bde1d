"""The plain claim: when the server plans it anew."""

from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla.config.queues import Queue
from oban_sqla.runtime import claiming
from oban_sqla.runtime.claiming import CALM, PlainClaim
from oban_sqla.runtime.database import Database
from tests.conftest import Tune
from tests.runtime.conftest import NoteFetches
from tests.runtime.workers import Quick

PRODUCER = str(uuid4())


@pytest.fixture
def way(database: Database) -> PlainClaim:
    return PlainClaim(database, Queue("default", 5), "node", lambda: 60.0)


@pytest.fixture
def sent(way: PlainClaim, note_fetches: NoteFetches) -> list[str]:
    """What the claims of this test let the server do with their plans."""
    found: list[str] = []
    note_fetches(lambda statement, _: found.append("plan" if statement is way._planned else "keep"))
    return found


async def test_a_calm_queue_keeps_its_plan_until_a_claim_is_full(
    way: PlainClaim,
    sent: list[str],
    sessions: async_sessionmaker[AsyncSession],
    tune: Tune,
) -> None:
    tune(claiming, QUICK=60.0)
    for _ in range(CALM + 2):
        await way.claim(2, PRODUCER)
    assert sent == ["plan"] * CALM + ["keep"] * 2
    async with sessions.begin() as session:
        session.add_all([Quick.new() for _ in range(3)])
    sent.clear()
    counts = [len((await way.claim(2, PRODUCER)).jobs) for _ in range(CALM + 2)]
    assert counts == [2, 1, *[0] * CALM]
    assert sent == ["keep", *["plan"] * CALM, "keep"]


async def test_a_slow_claim_does_not_keep_its_plan(
    way: PlainClaim, sent: list[str], tune: Tune
) -> None:
    tune(claiming, QUICK=0.0)
    for _ in range(CALM + 2):
        await way.claim(2, PRODUCER)
    assert set(sent) == {"plan"}


async def test_the_server_keeps_the_plan(way: PlainClaim, database: Database, tune: Tune) -> None:
    tune(claiming, QUICK=60.0)
    # The driver prepares a statement at its sixth execution, and the server then plans it five
    # times before it compares the plans.
    for _ in range(CALM + 15):
        await way.claim(2, PRODUCER)
    kept = text("SELECT sum(generic_plans) > 0 FROM pg_prepared_statements")
    assert await database.fetch(kept) == [(True,)]
