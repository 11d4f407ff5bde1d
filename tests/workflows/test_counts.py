"""The counts in the rows of workflows, as Oban Web reads them."""

from sqlalchemy import update
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
