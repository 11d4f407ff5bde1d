"""The keeper looks seldom while no step waits, and soon after news."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Workflow
from oban_sqla.runtime.database import Database
from oban_sqla.workflows import keeper as module
from oban_sqla.workflows.keeper import WorkflowKeeper
from tests.conftest import Tune
from tests.workflows.workers import Step

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def keeper(engine: AsyncEngine, prefix: str) -> AsyncIterator[WorkflowKeeper]:
    keeper = WorkflowKeeper(
        Database(engine, prefix),
        lambda name, data: None,
        is_leader=lambda: True,
        beside_others=lambda: False,
        announce=lambda ids: None,
    )
    yield keeper
    await keeper.stop()


async def test_it_looks_seldom_while_nothing_waits(
    keeper: WorkflowKeeper, sessions: Sessions
) -> None:
    async with sessions.begin() as session:
        session.add(Step.new())
    assert await keeper.run_once() == module.IDLE_INTERVAL


async def test_more_and_more_seldom_while_it_finds_nothing_to_repair(
    keeper: WorkflowKeeper, sessions: Sessions
) -> None:
    flow = Workflow()
    flow.add("first", Step.new(schedule_in=3600))
    async with sessions.begin() as session:
        session.add(flow)
    delays = [await keeper.run_once() for _ in range(6)]
    assert delays == sorted(delays)
    assert delays[-1] == module.LONGEST_INTERVAL


async def test_news_make_an_idle_keeper_look_soon(
    keeper: WorkflowKeeper, sessions: Sessions, monkeypatch: pytest.MonkeyPatch, tune: Tune
) -> None:
    tune(module, NEWS_DELAY=7.0)
    asked: list[float] = []
    monkeypatch.setattr(keeper, "wake_in", asked.append)
    keeper.news()
    assert asked == []
    await keeper.run_once()
    keeper.news()
    keeper.news()
    assert asked == [7.0]
