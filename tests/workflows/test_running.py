"""Workflows run: each step runs when its deps allow it, or follows their failure."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, JobState, Oban, Worker, Workflow
from tests.conftest import StartOban
from tests.listening import hear
from tests.workflows.conftest import Run, Sessions, loaded, states
from tests.workflows.workers import InTransaction, Step, ran

pytestmark = pytest.mark.usefixtures("expect_errors")  # some steps are discarded


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@pytest.mark.parametrize("worker", [Step, InTransaction])
async def test_each_step_runs_after_its_deps(run: Run, worker: type[Worker]) -> None:
    flow = Workflow("import")
    first = flow.add("first", worker.new())
    parts = [flow.add(f"part-{n}", worker.new(), deps=first) for n in range(5)]
    flow.add("sum", worker.new(), deps=parts)
    flow.add_last("cleanup", worker.new())
    done = await run(flow)
    assert (done.state, done.progress, done.completed) == ("completed", (8, 8), 8)
    assert ran[0] == "first"
    assert sorted(ran[1:6]) == [f"part-{n}" for n in range(5)]
    assert ran[6:] == ["sum", "cleanup"]
    assert done.completed_at is not None
    assert {job.state for job in done.jobs} == {JobState.COMPLETED}


@pytest.mark.parametrize("worker", [Step, InTransaction])
@pytest.mark.parametrize(("how", "outcome"), [("fail", "discarded"), ("cancel", "cancelled")])
async def test_a_failure_cancels_dependent_steps(
    run: Run, worker: type[Worker], how: str, outcome: str
) -> None:
    flow = Workflow()
    flow.add("bad", worker.new({how: True}))
    flow.add("good", worker.new())
    flow.add("next", worker.new(), deps=["bad", "good"])
    flow.add("after", worker.new(), deps="next")
    flow.add("anyway", worker.new(), deps="after", on_failure="run")
    flow.add("as-in-oban", worker.new(), deps="after", ignore_cancelled=True)
    flow.add_last("cleanup", worker.new())
    done = await run(flow)
    assert states(done) == {
        "bad": outcome,
        "good": "completed",
        "next": "cancelled",
        "after": "cancelled",
        "anyway": "completed",
        "as-in-oban": "completed",
        "cleanup": "completed",
    }
    assert done.state == outcome
    (error,) = done.steps["next"].errors
    assert error["error"] == f"the step 'bad' that it waits for was {outcome}"
    (error,) = done.steps["after"].errors
    assert error["error"] == "the step 'next' that it waits for was cancelled"
    assert ran[-1] == "cleanup"


async def test_a_held_step_keeps_waiting(start: StartOban, sessions: Sessions) -> None:
    oban = await start(queues={"default": 10})
    flow = Workflow(on_failure="hold")
    flow.add("bad", Step.new({"fail": True}))
    flow.add("next", Step.new(), deps="bad")
    with hear(oban, "ack_stop") as acks:
        await oban.enqueue(flow)
        await acks.counted(1)
    held = await loaded(sessions, flow.id)
    assert (held.state, states(held)["next"]) == ("executing", "suspended")


@pytest.mark.parametrize("worker", [Step, InTransaction])
async def test_a_held_step_runs_when_the_dep_was_retried(
    start: StartOban, sessions: Sessions, worker: type[Worker]
) -> None:
    oban = await start(queues={"default": 10})
    flow = Workflow()
    flow.add("bad", worker.new({"cancel": True}))
    flow.add("next", worker.new(), deps="bad", on_failure="hold")
    await oban.enqueue(flow)
    assert (await oban.wait(flow.steps["bad"], timeout=20)).state is JobState.CANCELLED
    async with sessions.begin() as session:
        await session.execute(
            update(Job).where(Job.id == flow.steps["bad"].id).values(args={"cancel": False})
        )
    assert await oban.retry(flow) == 1
    done = await oban.wait(flow, timeout=20)
    assert (done.state, set(states(done).values())) == ("completed", {"completed"})
    assert ran == ["bad", "bad", "next"]


@pytest.mark.parametrize("at", ["workflow", "step"])
async def test_the_option_names_of_oban_are_accepted(start: StartOban, at: str) -> None:
    """Each of them says that a step runs after one kind of failure, and after no other."""
    oban = await start(queues={"default": 10})
    failures = ("cancelled", "discarded", "deleted")
    for ignored in failures:
        options: dict[str, Any] = {f"ignore_{ignored}": True}
        flow = Workflow(**options if at == "workflow" else {})
        flow.add("cancelled", Step.new({"cancel": True}))
        flow.add("discarded", Step.new({"fail": True}))
        flow.add("deleted", Step.new(schedule_in=3600))
        for dep in failures:
            flow.add(f"after-{dep}", Step.new(), deps=dep, **options if at == "step" else {})
        await oban.enqueue(flow)
        assert await oban.delete_jobs(flow.steps["deleted"]) == 1
        done = states(await oban.wait(flow, timeout=20))
        assert {name for name, state in done.items() if state == "completed"} == {
            f"after-{ignored}"
        }


async def test_a_delay_begins_when_the_dep_ends(start: StartOban, sessions: Sessions) -> None:
    oban = await start(queues={"default": 10})
    flow = Workflow()
    flow.add("first", Step.new())
    flow.add("later", Step.new(), deps="first", after=timedelta(days=1))
    with hear(oban, "ack_stop") as acks:
        await oban.enqueue(flow)
        await acks.counted(1)
    done = await loaded(sessions, flow.id)
    first, later = done.steps["first"], done.steps["later"]
    assert later.state is JobState.SCHEDULED
    assert first.completed_at is not None
    waits = later.scheduled_at - first.completed_at
    assert timedelta(days=1) <= waits < timedelta(days=1, minutes=1)


async def test_a_workflow_within_a_workflow_runs(run: Run) -> None:
    inner = Workflow("inner")
    inner.add("a", Step.new())
    inner.add("b", Step.new(), deps="a")
    inner.add_last("inner-last", Step.new())
    flow = Workflow("outer")
    flow.add("first", Step.new())
    flow.add_workflow("middle", inner, deps="first")
    flow.add("end", Step.new(), deps="middle")
    flow.add_last("last", Step.new())
    done = await run(flow)
    assert ran == ["first", "a", "b", "inner-last", "end", "last"]
    assert (done.state, done.total) == ("completed", 6)


async def test_a_manually_finished_step_releases_others(
    start: StartOban, sessions: Sessions
) -> None:
    """The leader releases the steps if a dep was finished or deleted by hand."""
    flow = Workflow()
    flow.add("first", Step.new(schedule_in=3600))
    flow.add("gone", Step.new(schedule_in=3600))
    flow.add("next", Step.new(), deps="first")
    flow.add("orphan", Step.new(), deps="gone")
    async with sessions.begin() as session:
        session.add(flow)
    async with sessions.begin() as session:
        steps = flow.steps
        await session.execute(
            update(Job).where(Job.id == steps["first"].id).values(state=JobState.COMPLETED)
        )
        await session.execute(delete(Job).where(Job.id == steps["gone"].id))
    with hear(Oban, "workflow_stop") as stops:
        await start(queues={"default": 10})
        await stops.wait()
    assert states(await loaded(sessions, flow.id)) == {
        "first": "completed",
        "next": "completed",
        "orphan": "cancelled",
    }


async def test_a_locked_workflow_delays_its_own_steps_only(
    start: StartOban, sessions: Sessions, engine: AsyncEngine
) -> None:
    """A locked row of a workflow does not delay the outcomes of other jobs."""
    oban = await start(queues={"default": 10})
    flow, other = Workflow(), Workflow()
    for one in (flow, other):
        one.add("first", Step.new())
        one.add("next", Step.new(), deps="first")
    async with sessions() as session:
        with hear(oban, "workflow_stop") as stops, hear(oban, "ack_stop") as acks:
            async with session.begin():
                session.add_all([flow, other])
            async with session.begin():
                lock = select(Workflow.id).where(Workflow.id == flow.id).with_for_update()
                await session.execute(lock)
                await stops.until(lambda events: [stop.id for stop in events] == [other.id])
                await acks.counted(3)
                assert states(await loaded(sessions, flow.id))["next"] == "suspended"
            await stops.wait(2)
