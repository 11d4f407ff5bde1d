"""Workflows, batches and chains run on an engine of each driver."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban_sqla import Batch, Job, JobState, Worker, Workflow
from tests.conftest import StartOban
from tests.workflows.conftest import states
from tests.workflows.workers import InTransaction, Step, ran

pytestmark = pytest.mark.usefixtures("expect_errors")  # steps that are discarded


class Chained(Worker, name="drivers.chained", chain="account"):
    async def process(self, job: Job) -> None:
        ran.append(str(job.args["n"]))


@pytest.fixture
def engine(each_engine: AsyncEngine) -> AsyncEngine:
    return each_engine


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


async def test_each_driver_runs_a_workflow(start: StartOban) -> None:
    oban = await start(queues={"default": 10})
    inner, flow = Workflow("inner"), Workflow("outer", unique=True)
    inner.add("within", InTransaction.new())
    flow.add("first", Step.new())
    flow.add_workflow("inner", inner, deps="first")
    flow.add("bad", Step.new({"fail": True}), deps="inner")
    flow.add("next", InTransaction.new(), deps="bad")
    flow.add("anyway", InTransaction.new(), deps=["next", "first"], on_failure="run")
    flow.add_last("last", Step.new())
    await oban.enqueue(flow)
    assert (await oban.enqueue(unique())).conflict
    done = await oban.wait(flow, timeout=20)
    assert states(done) == {
        "first": "completed",
        "bad": "discarded",
        "next": "cancelled",
        "anyway": "completed",
        "last": "completed",
    }
    assert ran == ["first", "within", "bad", "anyway", "last"]
    assert await oban.retry(flow) == 1
    again = await oban.wait(flow, timeout=20)
    assert (again.state, again.progress) == ("discarded", (6, 6))
    assert await oban.cancel(flow) == 0


def unique() -> Workflow:
    flow = Workflow("outer", unique=True)
    flow.add("first", Step.new())
    return flow


async def test_each_driver_runs_a_batch_and_a_chain(start: StartOban, engine: AsyncEngine) -> None:
    oban = await start(queues={"default": 10})
    batch = Batch([Step.new() for _ in range(3)], on_completed=InTransaction.new())
    chained = [Chained.new({"account": 1, "n": n}) for n in range(3)]
    async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
        session.add_all([batch, *chained])
    await oban.wait(batch.steps["on_completed"], timeout=20)
    done = await oban.wait_many(chained, timeout=20)
    assert {one.state for one in done} == {JobState.COMPLETED}
    assert sorted(ran) == sorted(["1", "2", "3", "on_completed", "0", "1", "2"])
