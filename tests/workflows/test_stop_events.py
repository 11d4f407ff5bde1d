"""`workflow_stop` of a workflow that a call ends: after the commit, and only then."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, sessionmaker

from oban_sqla import Oban, Workflow
from oban_sqla.events import WorkflowStop
from tests.listening import hear
from tests.workflows.conftest import Sessions, loaded
from tests.workflows.workers import Step


@pytest.fixture
def client(engine: AsyncEngine, prefix: str) -> Oban:
    return Oban(engine, prefix=prefix)


@pytest.fixture
async def flow(client: Oban) -> Workflow:
    return await client.enqueue(two_steps())


def two_steps(name: str = "import") -> Workflow:
    flow = Workflow(name)
    flow.add("first", Step.new())
    flow.add("next", Step.new(), deps="first")
    return flow


def stop_of(flow: Workflow) -> WorkflowStop:
    return WorkflowStop(flow.id, flow.name, "cancelled")


async def test_a_call_without_a_conn_emits_the_event(client: Oban, flow: Workflow) -> None:
    with hear(client, "workflow_stop") as stops:
        assert await client.cancel(flow) == 2
    assert stops.events == [stop_of(flow)]


async def test_the_event_follows_the_commit(
    client: Oban, flow: Workflow, sessions: Sessions
) -> None:
    async with sessions() as session:
        with hear(client, "workflow_stop") as stops:
            await client.delete_jobs(flow.steps["first"], conn=session)
            assert stops.events == []
            await session.commit()
            assert stops.events == [stop_of(flow)]
            # Later transactions of the session don't emit it again.
            other = await client.enqueue(two_steps("other"))
            await client.cancel(other, conn=session)
            await session.commit()
    assert stops.events == [stop_of(flow), stop_of(other)]


async def test_a_rollback_drops_the_event(client: Oban, flow: Workflow, sessions: Sessions) -> None:
    async with sessions() as session:
        with hear(client, "workflow_stop") as stops:
            await client.cancel(flow, conn=session)
            await session.rollback()
            await session.execute(text("SELECT 1"))
            await session.commit()
    assert stops.events == []
    assert (await loaded(sessions, flow.id)).state == "executing"


async def test_savepoints_drop_or_keep_the_event(client: Oban, sessions: Sessions) -> None:
    flows = [await client.enqueue(two_steps(f"flow-{n}")) for n in range(5)]
    async with sessions() as session:
        with hear(client, "workflow_stop") as stops:
            await client.cancel(flows[0], conn=session)
            async with session.begin_nested():
                await client.cancel(flows[1], conn=session)
                inner = await session.begin_nested()
                await client.cancel(flows[2], conn=session)
                await inner.rollback()
            outer = await session.begin_nested()
            async with session.begin_nested():
                await client.cancel(flows[3], conn=session)
            await outer.rollback()
            await client.cancel(flows[4], conn=session)
            assert stops.events == []
            await session.commit()
    assert {stop.id for stop in stops.events} == {flows[n].id for n in (0, 1, 4)}
    ended = [(await loaded(sessions, flow.id)).state == "cancelled" for flow in flows]
    assert ended == [True, True, False, False, True]


async def test_a_failed_commit_emits_nothing(
    client: Oban, flow: Workflow, sessions: Sessions
) -> None:
    async with sessions() as session:
        with hear(client, "workflow_stop") as stops:
            await client.cancel(flow, conn=session)
            late = "CREATE TEMPORARY TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)"
            await session.execute(text(late))
            await session.execute(text("INSERT INTO late VALUES (1), (1)"))
            with pytest.raises(IntegrityError):
                await session.commit()
    assert stops.events == []
    assert (await loaded(sessions, flow.id)).state == "executing"


async def test_a_sync_session_emits_the_event(
    client: Oban, flow: Workflow, session_factory: sessionmaker[Session]
) -> None:
    with hear(client, "workflow_stop") as stops:
        with session_factory.begin() as session:
            await client.cancel(flow, conn=session)
            assert stops.events == []
        assert stops.events == [stop_of(flow)]


async def test_a_joined_session_emits_nothing(
    client: Oban, flow: Workflow, engine: AsyncEngine, sessions: Sessions
) -> None:
    with hear(client, "workflow_stop") as stops:
        async with engine.connect() as connection:
            await connection.begin()
            async with AsyncSession(connection, join_transaction_mode="create_savepoint") as joined:
                await client.cancel(flow, conn=joined)
                await joined.commit()
            await connection.rollback()
    assert stops.events == []
    assert (await loaded(sessions, flow.id)).state == "executing"
