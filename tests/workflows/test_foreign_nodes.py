"""The statements of nodes that know nothing of workflows: they run steps, and leave others alone.

tests/beside_oban runs nodes of oban-py. Here are the statements of Oban for Elixir.
"""

from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg import sql

from oban_sqla import Batch, Oban, Workflow
from tests.conftest import StartOban
from tests.listening import hear
from tests.workflows.conftest import Sessions, loaded, states
from tests.workflows.workers import Step

FETCH = """
UPDATE {jobs} AS j SET state = 'executing', attempted_at = timezone('UTC', now()),
    attempted_by = ARRAY['elixir', gen_random_uuid()::text], attempt = attempt + 1
FROM (
    SELECT id FROM {jobs}
    WHERE state = 'available' AND queue = %s AND attempt < max_attempts
    ORDER BY priority, scheduled_at, id
    LIMIT %s
    FOR UPDATE SKIP LOCKED
) AS f
WHERE j.id = f.id
RETURNING j.meta ->> 'name'
"""
STAGE = """
UPDATE {jobs} SET state = 'available'
WHERE state IN ('scheduled', 'retryable') AND queue IS NOT NULL
AND scheduled_at <= timezone('UTC', now())
"""
PRUNE = """
DELETE FROM {jobs} WHERE
    state = 'completed' AND completed_at < timezone('UTC', now()) - interval '1 day'
    OR state = 'cancelled' AND cancelled_at < timezone('UTC', now()) - interval '1 day'
    OR state = 'discarded' AND discarded_at < timezone('UTC', now()) - interval '1 day'
"""
ENDS = {
    "completed": "UPDATE {jobs} SET state = 'completed', completed_at = timezone('UTC', now())"
    " WHERE state = 'executing'",
    "discarded": "UPDATE {jobs} SET state = 'discarded', discarded_at = timezone('UTC', now())"
    " WHERE state = 'executing'",
    "cancelled": "UPDATE {jobs} SET state = 'cancelled', cancelled_at = timezone('UTC', now())"
    " WHERE state = 'executing'",
}


class Node:
    """Sends the statements of a node of Oban for Elixir."""

    def __init__(self, connection: psycopg.AsyncConnection, prefix: str) -> None:
        self._connection = connection
        self._jobs = sql.Identifier(prefix, "oban_jobs")

    async def run(self, statement: str, *params: object) -> list[str]:
        query = sql.SQL(statement).format(jobs=self._jobs)
        cursor = await self._connection.execute(query, params)
        return [name for (name,) in await cursor.fetchall()] if cursor.description else []

    async def fetch(self) -> list[str]:
        """Claim all available jobs, and return the names of the steps."""
        await self.run(STAGE)
        return await self.run(FETCH, "default", 100)


@pytest.fixture
async def node(postgres_dsn: str, prefix: str) -> AsyncIterator[Node]:
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        yield Node(connection, prefix)


async def test_suspended_steps_are_left_alone(node: Node, sessions: Sessions) -> None:
    flow = Workflow()
    flow.add("first", Step.new())
    flow.add("next", Step.new(), deps="first")
    flow.add_last("last", Step.new())
    async with sessions.begin() as session:
        session.add_all([flow, Batch([Step.new()], on_completed=Step.new())])
    assert await node.fetch() == ["first", "1"]
    await node.run(ENDS["completed"])
    assert await node.fetch() == []
    await node.run(PRUNE)
    assert states(await loaded(sessions, flow.id)) == {
        "first": "completed",
        "next": "suspended",
        "last": "suspended",
    }


@pytest.mark.parametrize("end", ENDS)
async def test_our_leader_follows_its_outcomes(
    node: Node, sessions: Sessions, start: StartOban, end: str
) -> None:
    flow = Workflow()
    flow.add("first", Step.new())
    flow.add("next", Step.new(), deps="first")
    flow.add("anyway", Step.new(), deps="first", on_failure="run")
    flow.add_last("last", Step.new())
    async with sessions.begin() as session:
        session.add(flow)
    assert await node.fetch() == ["first"]
    await node.run(ENDS[end])
    with hear(Oban, "workflow_stop") as stops:
        await start(queues={"default": 10})
        await stops.wait()
    done = await loaded(sessions, flow.id)
    assert done.state == end
    assert states(done) == {
        "first": end,
        "next": "completed" if end == "completed" else "cancelled",
        "anyway": "completed",
        "last": "completed",
    }
