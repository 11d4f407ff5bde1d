"""Workflows go in through each kind of `conn`, and obey its transaction."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Oban, Workflow
from tests.enqueue.conn_kinds import CONN_KINDS, MAIN_KINDS, ConnKind, ending_badly
from tests.workflows.conftest import Sessions, loaded, states
from tests.workflows.test_adding import count
from tests.workflows.workers import Step

STATES = {"first": "available", "next": "suspended", "cleanup": "suspended"}


@pytest.fixture
def client(engine: AsyncEngine, prefix: str) -> Oban:
    """An instance that was never started."""
    return Oban(engine, prefix=prefix)


def nested(**options: bool) -> Workflow:
    flow, inner = Workflow("outer", **options), Workflow("inner")
    inner.add("within", Step.new())
    first = flow.add("first", Step.new())
    flow.add_workflow("inner", inner, deps=first)
    flow.add("next", Step.new(), deps="inner")
    flow.add_last("cleanup", Step.new())
    return flow


@pytest.mark.parametrize("kind", CONN_KINDS, indirect=True)
class TestEveryConn:
    async def test_a_workflow_commits(
        self, kind: ConnKind, client: Oban, sessions: Sessions
    ) -> None:
        flow = await client.enqueue(nested(), conn=kind.conn)
        await kind.flush()
        assert all(job.id > 0 for job in flow.steps.values())
        id = flow.id
        assert await count(sessions) == [0, 0, 0]
        await kind.commit()
        assert await count(sessions) == [2, 4, 4]
        found = await loaded(sessions, id)
        assert (states(found), found.progress) == (STATES, (0, 4))


@pytest.mark.parametrize("kind", MAIN_KINDS, indirect=True)
class TestMainKinds:
    async def test_a_workflow_rolls_back(
        self, kind: ConnKind, client: Oban, sessions: Sessions
    ) -> None:
        await client.enqueue(nested(), conn=kind.conn)
        await kind.flush()
        await kind.rollback()
        assert await count(sessions) == [0, 0, 0]

    async def test_a_workflow_obeys_savepoints(
        self, kind: ConnKind, client: Oban, sessions: Sessions
    ) -> None:
        kept = await client.enqueue(nested(unique=True), conn=kind.conn)
        await kind.flush()
        id = kept.id
        async with ending_badly(kind.savepoint()):
            await client.enqueue(nested(), conn=kind.conn)
            await kind.flush()
        await kind.commit()
        assert await count(sessions) == [2, 4, 4]
        again = await client.enqueue(nested(unique=True), conn=kind.conn)
        await kind.flush()
        await kind.commit()
        assert (again.conflict, again.id) == (True, id)
        assert await count(sessions) == [2, 4, 4]

    async def test_steps_are_added(self, kind: ConnKind, client: Oban, sessions: Sessions) -> None:
        flow = await client.enqueue(nested(), conn=kind.conn)
        await kind.flush()
        id = flow.id
        flow.add("more", Step.new(), deps=["next", "inner"])
        flow.add("now", Step.new())
        await client.enqueue(flow, conn=kind.conn)
        await kind.flush()
        await kind.commit()
        found = await loaded(sessions, id)
        assert states(found) == {**STATES, "more": "suspended", "now": "available"}
        assert (found.total, found.open, found.lasts) == (6, 5, 1)
        assert [
            dep if isinstance(dep, str) else dep[1] for dep in found.steps["more"].meta["deps"]
        ] == [
            "next",
            "within",
        ]
