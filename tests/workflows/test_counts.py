"""The counts in the rows of workflows, as Oban Web reads them."""

from typing import Any

from sqlalchemy import event, func, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, JobState, Workflow
from oban_sqla.workflows.counts import recount
from tests.workflows.conftest import Sessions, loaded
from tests.workflows.workers import Step


async def test_waiting_and_running_steps_are_counted_again(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    flow, locked = Workflow(), Workflow()
    for one in (flow, locked):
        first = one.add("first", Step.new())
        one.add("later", Step.new(schedule_in=60))
        one.add("next", Step.new(), deps=first)
    async with sessions.begin() as session:
        session.add_all([flow, locked])
    async with engine.connect() as connection, sessions() as session:
        await session.get(Workflow, locked.id, with_for_update=True)
        await connection.execute(
            update(Job)
            .where(Job.worker == "flows.step", Job.state == JobState.AVAILABLE)
            .values(state=JobState.EXECUTING)
        )
        changed = (await connection.execute(recount())).scalars().all()
        await connection.commit()
        assert changed == [flow.id]
    found = await loaded(sessions, flow.id)
    counts = (found.available, found.executing, found.scheduled, found.suspended)
    assert counts == (0, 1, 1, 1)
    async with engine.begin() as connection:
        assert (await connection.execute(recount())).scalars().all() == [locked.id]
        assert (await connection.execute(recount())).scalars().all() == []


def loops(node: dict[str, Any], kind: str) -> list[int]:
    """How often each node of a kind has run in a plan."""
    own = [node["Actual Loops"]] if node["Node Type"] == kind else []
    return own + [count for part in node.get("Plans", ()) for count in loops(part, kind)]


async def test_workflows_are_locked_in_one_pass(engine: AsyncEngine, sessions: Sessions) -> None:
    """Even if the planner expects few workflows."""
    async with sessions.begin() as session:
        await session.execute(text("ANALYZE"))
    async with sessions.begin() as session:
        flows = [Workflow() for _ in range(200)]
        for flow in flows:
            flow.add("step", Step.new())
        session.add_all(flows)

    async with engine.begin() as connection:
        started = update(Job).values(state=JobState.EXECUTING, attempted_at=func.now())
        await connection.execute(started.where(Job.worker == "flows.step"))

        @event.listens_for(connection.sync_connection, "before_cursor_execute", retval=True)
        def explain(_c: Any, _d: Any, sql: str, params: Any, *_: Any) -> tuple[str, Any]:
            return f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params

        plan = (await connection.execute(recount())).scalar_one()[0]["Plan"]
    assert plan["Actual Rows"] == 200
    assert loops(plan, "LockRows") == [1]
