"""The keeper looks seldom while no step waits, soon after news, and one workflow stops no other."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Chain, Job, JobState, Worker, Workflow
from oban_sqla.runtime.database import Database
from oban_sqla.workflows import keeper as module
from oban_sqla.workflows.keeper import WorkflowKeeper
from oban_sqla.workflows.step import Step as Row
from tests.conftest import StartOban, Tune
from tests.workflows.conftest import jobs_of, loaded, states
from tests.workflows.workers import Step

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def keeper(engine: AsyncEngine, prefix: str) -> AsyncIterator[WorkflowKeeper]:
    keeper = WorkflowKeeper(
        Database(engine, prefix),
        lambda name, data: None,
        is_leader=lambda: True,
        has_foreign_nodes=lambda: False,
        announce=lambda ids: None,
    )
    yield keeper
    await keeper.stop()


async def test_the_keeper_looks_seldom_while_nothing_waits(
    keeper: WorkflowKeeper, sessions: Sessions
) -> None:
    async with sessions.begin() as session:
        session.add(Step.new())
    assert await keeper.run_once() == module.IDLE_INTERVAL


async def test_the_keeper_looks_less_often_while_it_repairs_nothing(
    keeper: WorkflowKeeper, sessions: Sessions
) -> None:
    flow = Workflow()
    flow.add("first", Step.new(schedule_in=3600))
    async with sessions.begin() as session:
        session.add(flow)
    delays = [await keeper.run_once() for _ in range(6)]
    assert delays == sorted(delays)
    assert delays[-1] == module.LONGEST_INTERVAL


async def test_news_makes_an_idle_keeper_look_soon(
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


def two_steps() -> Workflow:
    flow = Workflow()
    flow.add("first", Step.new())
    flow.add("next", Step.new(), deps="first")
    return flow


async def finish_by_hand(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        done = update(Job).where(Job.state == JobState.AVAILABLE)
        await session.execute(done.values(state=JobState.COMPLETED))


async def next_states(sessions: Sessions, flows: list[Workflow]) -> list[str]:
    return [states(await loaded(sessions, flow.id))["next"] for flow in flows]


async def test_a_locked_workflow_delays_no_other(
    keeper: WorkflowKeeper, sessions: Sessions, tune: Tune
) -> None:
    tune(module, BATCH=1)
    flows = [two_steps() for _ in range(3)]
    for flow in flows:
        async with sessions.begin() as session:
            session.add(flow)
    await finish_by_hand(sessions)
    async with sessions() as session:
        lock = select(Workflow.id).where(Workflow.id == flows[0].id).with_for_update()
        await session.execute(lock)
        assert [await keeper.run_once() for _ in range(3)] == [0.0] * 3
        assert await next_states(sessions, flows) == ["suspended", "available", "available"]
        assert await keeper.run_once() > 0.0
        await session.rollback()
    assert await keeper.run_once() == 0.0
    assert await next_states(sessions, flows) == ["available"] * 3


async def test_a_workflow_that_the_server_refuses_to_release_stops_no_other(
    keeper: WorkflowKeeper, sessions: Sessions
) -> None:
    flows = [two_steps() for _ in range(4)]
    async with sessions.begin() as session:
        session.add_all(flows)
    async with sessions.begin() as session:
        # The release adds an interval that no timestamp can bear.
        endless = update(Row).where(Row.workflow_id == flows[1].id, Row.name == "next")
        await session.execute(endless.values(delay=1e18))
    await finish_by_hand(sessions)
    with pytest.raises(DBAPIError):
        await keeper.run_once()
    expected = ["available", "suspended", "available", "available"]
    assert await next_states(sessions, flows) == expected


async def test_a_deleted_workflow_stops_no_other(
    keeper: WorkflowKeeper, sessions: Sessions, start: StartOban
) -> None:
    gone, flow = two_steps(), two_steps()
    async with sessions.begin() as session:
        session.add_all([gone, flow])
    async with sessions.begin() as session:
        await session.execute(delete(Workflow).where(Workflow.id == gone.id))
    oban = await start(queues={"default": 10}, leadership=False)
    assert (await oban.wait(flow, timeout=20)).state == "completed"
    first = await oban.wait(gone.steps["first"], timeout=20)
    assert first.state is JobState.COMPLETED
    assert await keeper.run_once() > 0


class Ending(Worker, name="keeper.ending", chain=Chain("account", on_discard="cancel")):
    async def process(self, job: Job) -> None: ...


async def test_a_chain_ends_with_a_job_that_the_lifeline_discards(
    keeper: WorkflowKeeper, sessions: Sessions
) -> None:
    """The jobs that waited are cancelled. Jobs that were enqueued later run."""
    accounts = (1, 2)

    async def enqueue() -> None:
        async with sessions.begin() as session:
            session.add_all(Ending.new({"account": account}) for account in accounts for _ in "ab")

    async def move(number: int, **values: object) -> None:
        """Change one job of the first chain, as another program does."""
        ids = [job.id for job in await jobs_of(sessions) if job.args["account"] == accounts[0]]
        async with sessions.begin() as session:
            await session.execute(update(Job).where(Job.id == ids[number]).values(values))

    async def chain(number: int) -> list[str]:
        jobs = await jobs_of(sessions)
        return [job.state.value for job in jobs if job.args["account"] == accounts[number]]

    await enqueue()
    await move(0, state=JobState.DISCARDED, discarded_at=func.timezone("UTC", func.now()))
    await keeper.run_once()
    assert await chain(0) == ["discarded", "cancelled"]
    assert await chain(1) == ["available", "suspended"]

    await enqueue()
    assert await chain(0) == ["discarded", "cancelled", "available", "suspended"]
    await move(2, state=JobState.COMPLETED)
    await keeper.run_once()
    assert await chain(0) == ["discarded", "cancelled", "completed", "available"]
