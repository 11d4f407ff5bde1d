"""A node announces the outcomes for which processes wait, and no others."""

import json
from collections.abc import AsyncIterator, Callable
from types import ModuleType

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla.runtime import outcome_announcer
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.outcome_announcer import OutcomeAnnouncer
from oban_sqla.statements.announce import AWAIT, about
from tests.conftest import Tune
from tests.runtime.conftest import Clock


@pytest.fixture
def announcer(engine: AsyncEngine, prefix: str) -> OutcomeAnnouncer:
    return OutcomeAnnouncer(Database(engine, prefix), lambda name, data: None)


@pytest.fixture
async def listener(postgres_dsn: str, prefix: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        channel = sql.Identifier(f"{prefix}.oban_done")
        await connection.execute(sql.SQL("LISTEN {}").format(channel))
        yield connection


async def announced(announcer: OutcomeAnnouncer, listener: psycopg.AsyncConnection) -> list[int]:
    """The ids that a pass announces."""
    await announcer.run_once()
    # Everything that was sent before this round trip has arrived.
    await listener.execute("SELECT 1")
    news = [n async for n in listener.notifies(timeout=0)]
    return [id for one in news for id in json.loads(one.payload)["ids"]]


async def test_only_awaited_outcomes_are_announced(
    announcer: OutcomeAnnouncer, listener: psycopg.AsyncConnection
) -> None:
    announcer.written([1, 2])
    announcer.hear({"ids": [2, 3]})
    announcer.written([1, 2])
    announcer.written([2, 4])
    assert await announced(announcer, listener) == [2]
    assert await announced(announcer, listener) == []


async def test_a_job_that_failed_and_runs_again_is_announced_each_time(
    announcer: OutcomeAnnouncer, listener: psycopg.AsyncConnection
) -> None:
    announcer.hear({"ids": [1]})
    for _ in range(2):
        announcer.written([1])
        assert await announced(announcer, listener) == [1]


async def test_many_outcomes_are_announced_in_several_notifications(
    announcer: OutcomeAnnouncer, listener: psycopg.AsyncConnection
) -> None:
    ids = list(range(2**63 - 1000, 2**63))
    announcer.hear({"ids": ids})
    announcer.written(ids)
    assert await announced(announcer, listener) == ids


async def test_waiters_are_forgotten_after_a_while(
    announcer: OutcomeAnnouncer,
    listener: psycopg.AsyncConnection,
    clock_of: Callable[[ModuleType], Clock],
) -> None:
    clock = clock_of(outcome_announcer)
    announcer.hear({"ids": [1, 2]})
    clock.now += 60
    announcer.hear({"ids": [2]})
    clock.now += 61
    announcer.written([1, 2])
    assert await announced(announcer, listener) == [2]
    announcer.hear({"ids": [3]})
    assert set(announcer._until) == {2, 3}


async def test_the_number_of_remembered_waiters_is_bounded(
    announcer: OutcomeAnnouncer,
    listener: psycopg.AsyncConnection,
    tune: Tune,
) -> None:
    tune(outcome_announcer, MOST=3)
    announcer.hear({"ids": [1, 2]})
    announcer.hear({"ids": [3, 4, 1]})
    announcer.written([1, 2, 3, 4])
    # The jobs that were named first are kept, also if they are named again.
    assert await announced(announcer, listener) == [1, 2, 3]


@pytest.mark.parametrize("news", [{}, {"ids": 1}, {"ids": None}, {"ids": {"1": 2}}])
async def test_invalid_news_is_ignored(
    announcer: OutcomeAnnouncer, news: dict[str, object]
) -> None:
    announcer.hear(news)
    announcer.hear({"ids": [[], {}, None, "1", 1.5]})
    assert not announcer._until


def test_the_largest_ids_fit_into_notifications() -> None:
    news = json.loads(about(AWAIT, range(2**63 - 1000, 2**63))["news"])
    payloads = [json.dumps(one["payload"]) for one in news]
    assert max(map(len, payloads)) < 8000
    assert [id for one in payloads for id in json.loads(one)["ids"]] == [
        *range(2**63 - 1000, 2**63)
    ]
