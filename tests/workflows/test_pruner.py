"""Workflows are pruned as a whole, and only after they have ended."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from oban_sqla import Job, JobState, Oban, Workflow
from oban_sqla.runtime.pruner import Pruner
from oban_sqla.workflows.pruner import WorkflowPruner
from oban_sqla.workflows.step import Step as Row
from tests.conftest import StartOban, Tune
from tests.listening import hear
from tests.services import services
from tests.workflows.conftest import Sessions
from tests.workflows.workers import Step

LONG_AGO = datetime.now(UTC) - timedelta(days=400)


def nested() -> Workflow:
    inner = Workflow()
    inner.add("a", Step.new())
    flow = Workflow()
    flow.add("first", Step.new())
    flow.add_workflow("inner", inner, deps="first")
    return flow


async def test_an_ended_workflow_is_deleted_as_a_whole(
    start: StartOban, sessions: Sessions, tune: Tune
) -> None:
    for kind in (Pruner, WorkflowPruner):
        tune(kind, begins_in=0.0)
    ended, running = nested(), nested()
    async with sessions.begin() as session:
        session.add_all([ended, running, Job("w")])
    done = {"state": JobState.COMPLETED, "completed_at": LONG_AGO}
    async with sessions.begin() as session:
        await session.execute(
            update(Job)
            .where(Job.id != running.graph.within["inner"].workflow.steps["a"].id)
            .values(done)
        )
        ids = [ended.id, ended.graph.within["inner"].workflow.id]
        await session.execute(update(Row).where(Row.workflow_id.in_(ids)).values(ended="completed"))
        over = Workflow.id.in_(ids)
        await session.execute(
            update(Workflow).where(over).values(state="completed", completed_at=LONG_AGO)
        )
    with hear(Oban, "prune_stop") as prunes:
        await start(queues={"other": 1}, retention=60)
        await prunes.counted(3)
    async with sessions() as session:
        left = [
            await session.scalar(select(func.count()).select_from(table))
            for table in (Workflow, Row, Job)
        ]
        assert left == [2, 2, 2]
        # Steps of a running workflow are kept, however long ago they ended.
        assert await session.get(Job, running.steps["first"].id) is not None


async def test_the_retention_of_a_worker_deletes_no_step(
    start: StartOban, sessions: Sessions
) -> None:
    """Steps go with their workflow, past its retention; other jobs of their worker go before."""
    flow, ended = nested(), nested()
    async with sessions.begin() as session:
        session.add_all([flow, ended, Step.new()])
    async with sessions.begin() as session:
        done = {"state": JobState.COMPLETED, "completed_at": LONG_AGO}
        await session.execute(update(Job).values(done))
        over = Workflow.id.in_([ended.id, ended.graph.within["inner"].workflow.id])
        just_now = {"state": "completed", "completed_at": func.timezone("UTC", func.now())}
        await session.execute(update(Workflow).where(over).values(just_now))
    retention = {"completed": 3600, "workers": {"flows.step": 60}}
    with hear(Oban, "prune_stop") as prunes:
        oban = await start(queues={"other": 1}, retention=retention)
        await prunes.counted(1)
        for service in services(oban).cluster_services:
            if service.name in ("pruner", "workflow pruner"):
                await service.run_once()
    async with sessions() as session:
        assert await session.scalar(select(func.count()).select_from(Job)) == 4
        assert {job.meta.get("workflow_id") for job in await session.scalars(select(Job))} == {
            one.id
            for whole in (flow, ended)
            for one in (whole, whole.graph.within["inner"].workflow)
        }


@pytest.mark.parametrize("locks", [Job, Workflow])
async def test_a_locked_workflow_delays_no_other(
    start: StartOban, sessions: Sessions, locks: type[Job | Workflow]
) -> None:
    flows = [nested() for _ in range(3)]
    async with sessions.begin() as session:
        session.add_all(flows)
    async with sessions.begin() as session:
        await session.execute(update(Job).values(state=JobState.COMPLETED, completed_at=LONG_AGO))
        await session.execute(update(Row).values(ended="completed"))
        await session.execute(update(Workflow).values(state="completed", completed_at=LONG_AGO))
    held = flows[0].id if locks is Workflow else flows[0].steps["first"].id
    async with sessions() as session:
        await session.execute(select(locks.id).where(locks.id == held).with_for_update())
        with hear(Oban, "prune_stop") as prunes:
            oban = await start(queues={"other": 1}, retention=60)
            await prunes.counted(4)
        pruner = next(
            one for one in services(oban).cluster_services if one.name == "workflow pruner"
        )
        assert await pruner.run_once() > 0
        await session.rollback()
    async with sessions() as session:
        assert {*await session.scalars(select(Workflow.id))} == {
            flows[0].id,
            flows[0].graph.within["inner"].workflow.id,
        }
        assert await session.scalar(select(func.count()).select_from(Row)) == 2
    await pruner.run_once()
    async with sessions() as session:
        left = [
            await session.scalar(select(func.count()).select_from(table))
            for table in (Workflow, Row, Job)
        ]
    assert left == [0, 0, 0]
