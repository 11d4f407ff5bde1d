"""Cancel, retry and wait for workflows, and add steps while they run."""

import asyncio

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban_sqla import (
    Job,
    JobState,
    Oban,
    ObanError,
    Record,
    Worker,
    Workflow,
    current_job,
    current_workflow,
)
from tests.conftest import StartOban
from tests.workflows.conftest import Run, Sessions, loaded, states
from tests.workflows.workers import Step, ran

pytestmark = pytest.mark.usefixtures("expect_errors")  # some steps are discarded


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


class Flaky(Worker, name="flows.flaky", max_attempts=1):
    """A worker that fails once."""

    failed = False

    async def process(self, job: Job) -> None:
        if not Flaky.failed:
            Flaky.failed = True
            raise ValueError("once")


async def test_a_retried_step_revives_the_steps_that_it_had_cancelled(
    start: StartOban, sessions: Sessions
) -> None:
    Flaky.failed = False
    oban = await start(queues={"default": 10})
    flow = Workflow()
    flow.add("other", Step.new())
    flow.add("flaky", Flaky.new())
    flow.add("next", Step.new(), deps=["flaky", "other"])
    flow.add("end", Step.new(), deps="next")
    flow.add("report", Step.new(), deps="end", on_failure="run")
    await oban.enqueue(flow)
    failed = await oban.wait(flow, timeout=20)
    assert failed.state == "discarded"
    assert states(failed)["end"] == "cancelled"

    assert await oban.retry(flow) == 1
    done = await oban.wait(flow, timeout=20)
    assert (done.state, set(states(done).values())) == ("completed", {"completed"})
    assert (done.open, done.completed, done.cancelled, done.discarded) == (0, 5, 0, 0)
    assert ran == ["other", "report", "next", "end"]


async def test_a_step_is_retried_by_its_job(start: StartOban, sessions: Sessions) -> None:
    Flaky.failed = False
    oban = await start(queues={"default": 10})
    flow = Workflow()
    flow.add("flaky", Flaky.new())
    flow.add("next", Step.new(), deps="flaky")
    await oban.enqueue(flow)
    await oban.wait(flow, timeout=20)
    async with sessions.begin() as session:
        assert await oban.retry_jobs(flow.steps["flaky"].id, conn=session) == 1
        again = await session.get_one(Job, flow.steps["next"].id)
        assert again.state is JobState.SUSPENDED
    assert (await oban.wait(flow, timeout=20)).state == "completed"


async def test_a_cancelled_workflow_runs_its_last_step(
    start: StartOban, sessions: Sessions
) -> None:
    oban = await start(queues={"default": 10})
    inner = Workflow()
    inner.add("a", Step.new(schedule_in=60))
    flow = Workflow()
    flow.add("first", Step.new(schedule_in=60))
    flow.add("next", Step.new(), deps="first")
    flow.add_workflow("inner", inner)
    flow.add_last("cleanup", Step.new())
    await oban.enqueue(flow)
    async with sessions.begin() as session:
        assert await oban.cancel(flow, conn=session) == 3
    done = await oban.wait(flow, timeout=20)
    assert states(done) == {"first": "cancelled", "next": "cancelled", "cleanup": "completed"}
    assert done.state == "cancelled"
    assert (await loaded(sessions, inner.id)).state == "cancelled"

    # Again from the beginning: each step waits for its deps, as before.
    assert await oban.retry(flow) == 3
    assert states(await loaded(sessions, flow.id))["next"] in ("suspended", "completed")
    again = await oban.wait(flow, timeout=20)
    assert (again.state, set(states(again).values())) == ("completed", {"completed"})
    assert ran.index("first") < ran.index("next")


async def test_a_workflow_is_cancelled_while_a_step_adds_steps(
    start: StartOban, sessions: Sessions
) -> None:
    """The two transactions don't deadlock, and the new steps are cancelled, too."""
    begun, gate = asyncio.Event(), asyncio.Event()

    class Slow(Worker, name="flows.slow", max_attempts=1):
        async def process(self, job: Job, session: AsyncSession) -> None:
            flow = current_workflow()
            flow.add("more", Step.new(schedule_in=60))
            session.add(flow)
            await session.flush()
            begun.set()
            await gate.wait()

    oban = await start(queues={"default": 10})
    flow = Workflow()
    flow.add("slow", Slow.new())
    flow.add("other", Step.new(schedule_in=60))
    await oban.enqueue(flow)
    await begun.wait()
    cancelling = asyncio.create_task(oban.cancel(flow))
    await asyncio.wait([cancelling], timeout=0.2)
    assert not cancelling.done()
    gate.set()
    assert await cancelling == 2
    done = await oban.wait(flow, timeout=20)
    assert states(done) == {"slow": "completed", "other": "cancelled", "more": "cancelled"}


async def test_a_wait_returns_the_value_of_a_workflow(start: StartOban) -> None:
    class Value(Worker, name="flows.value"):
        async def process(self, job: Job) -> Record:
            return Record(sum((await job.results()).values(), job.args["n"]))

    oban = await start(queues={"default": 10})
    flow = Workflow()
    flow.add(
        "total", Value.new({"n": 1}), deps=[flow.add(f"n{n}", Value.new({"n": n})) for n in (2, 3)]
    )
    await oban.enqueue(flow)
    assert (await oban.wait(flow, timeout=20)).recorded == 6


async def test_a_wait_has_a_timeout(start: StartOban) -> None:
    oban = await start(queues={"default": 10})
    flow = Workflow()
    flow.add("later", Step.new(schedule_in=60))
    await oban.enqueue(flow)
    with pytest.raises(TimeoutError, match=r"has not ended within 0.1 s; `oban-sqla work"):
        await oban.wait(flow, timeout=0.1)
    with pytest.raises(LookupError):
        await oban.wait(Workflow(), timeout=1)


async def test_a_wait_includes_workflows_within(start: StartOban, engine: AsyncEngine) -> None:
    """The wait sleeps until a step of the inner workflow has ended, instead of polling."""
    begun, gate, looks = asyncio.Event(), asyncio.Event(), 0

    class Gate(Worker, name="flows.gate"):
        async def process(self, job: Job) -> None:
            begun.set()
            await gate.wait()

    def count(connection: object, cursor: object, sql: str, *_: object) -> None:
        nonlocal looks
        looks += "oban_sqla_workflow_steps.ended IS NULL AND" in sql and "RECURSIVE" in sql

    oban = await start(queues={"default": 10})
    flow, inner = Workflow(), Workflow()
    flow.add("first", Step.new())
    inner.add("gate", Gate.new())
    flow.add_workflow("inner", inner, deps="first")
    await oban.enqueue(flow)
    event.listen(engine.sync_engine, "before_cursor_execute", count)
    waiting = asyncio.create_task(oban.wait(flow, timeout=20))
    await begun.wait()
    with pytest.raises(TimeoutError):
        await oban.wait(flow, timeout=0.3)
    gate.set()
    assert (await waiting).progress == (2, 2)
    assert 0 < looks < 8


async def test_a_wait_survives_the_deletion_of_a_step(start: StartOban) -> None:
    oban = await start(queues={"default": 10})
    flow = Workflow()
    flow.add("later", Step.new(schedule_in=60))
    flow.add("next", Step.new(), deps="later")
    await oban.enqueue(flow)
    waiting = asyncio.create_task(oban.wait(flow, timeout=20))
    await asyncio.sleep(0)
    assert await oban.delete_jobs(flow.steps["later"]) == 1
    done = await waiting
    assert (done.state, states(done)) == ("cancelled", {"next": "cancelled"})
    (error,) = done.steps["next"].errors
    assert error["error"] == "the step 'later' that it waits for was deleted"


async def test_a_deleted_step_cancels_in_the_same_transaction(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    oban, flow = Oban(engine), Workflow()
    flow.add("first", Step.new())
    flow.add("next", Step.new(), deps="first")
    async with sessions.begin() as session:
        session.add(flow)
        await session.flush()
        assert await oban.delete_jobs(flow.steps["first"], conn=session) == 1
    found = await loaded(sessions, flow.id)
    assert (found.state, states(found)) == ("cancelled", {"next": "cancelled"})


async def test_a_step_of_a_workflow_within_adds_steps(run: Run, sessions: Sessions) -> None:
    seen: list[object] = []

    class Grow(Worker, name="flows.grow"):
        async def process(self, job: Job, session: AsyncSession) -> None:
            flow, part = current_workflow(), Workflow("part")
            flow.add("more", Step.new(), deps="grow")
            part.add("deep", Step.new())
            flow.add_workflow("part", part, deps="more")
            flow.add_last("inner-last", Step.new())
            session.add(flow)
            await session.refresh(flow, ["meta"])
            seen.append((flow.name, flow.meta["note"], flow.parent_id))

    inner, flow = Workflow("inner", meta={"note": 7}), Workflow("outer")
    inner.add("grow", Grow.new())
    flow.add_workflow("inner", inner)
    flow.add("after", Step.new(), deps="inner")
    flow.add_last("last", Step.new())
    done = await run(flow)
    assert (done.state, done.progress) == ("completed", (6, 6))
    assert seen == [("inner", 7, flow.id)]
    assert ran.index("more") < ran.index("deep") < ran.index("inner-last") < ran.index("last")
    within = await loaded(sessions, inner.id)
    assert (within.state, within.progress) == ("completed", (4, 4))
    assert within.steps["more"].meta["sup_workflow_id"] == flow.id


async def test_a_step_adds_steps(run: Run, engine: AsyncEngine) -> None:
    class Split(Worker, name="flows.split"):
        async def process(self, job: Job, session: object) -> None:
            flow = current_workflow()
            parts = [flow.add(f"part-{n}", Step.new()) for n in range(3)]
            flow.add("sum", Step.new(), deps=[*parts, "other"])
            session.add(flow)  # type: ignore[attr-defined]

    class Through(Worker, name="flows.through"):
        async def process(self, job: Job) -> None:
            flow = current_workflow()
            flow.add("through-oban", Step.new(), deps="other")
            await Oban(engine).enqueue(flow)

    flow = Workflow()
    flow.add("through", Through.new())
    flow.add("split", Split.new())
    flow.add("other", Step.new())
    flow.add_last("cleanup", Step.new())
    done = await run(flow)
    assert done.progress == (9, 9)
    assert set(ran[-3:-1]) <= {"sum", "through-oban", "part-0", "part-1", "part-2"}
    assert ran[-1] == "cleanup"
    assert current_job() is None
    with pytest.raises(ObanError, match="no step of a workflow"):
        current_workflow()
