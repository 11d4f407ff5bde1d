"""The testing helpers run workflows and chains to their end, in the transaction of a test."""

import pytest
from sqlalchemy import select

from oban_sqla import Job, Record, Worker, Workflow
from oban_sqla.testing import drain_queue
from tests.workflows.conftest import Sessions
from tests.workflows.workers import InTransaction, Step, ran


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


class Number(Worker, name="draining.number"):
    """A worker that adds its number to those of the steps before."""

    async def process(self, job: Job) -> Record:
        return Record(sum((await job.results()).values(), job.args["n"]))


class Chained(Worker, name="draining.chained", chain=True):
    """A worker that notes its number."""

    async def process(self, job: Job) -> None:
        ran.append(str(job.args["n"]))


async def test_a_workflow_is_drained(sessions: Sessions) -> None:
    flow = Workflow()
    flow.add("first", Step.new())
    flow.add("next", InTransaction.new(), deps="first")
    flow.add("two", Number.new({"n": 2}), deps="next")
    flow.add("sum", Number.new({"n": 3}), deps="two")
    flow.add_last("last", Step.new())
    async with sessions() as session:
        session.add(flow)
        assert (await drain_queue(session))["completed"] == 5
        found = (await session.scalars(select(Workflow))).one()
        assert (found.state, found.progress) == ("completed", (5, 5))
        jobs = {job.meta["name"]: job for job in await session.scalars(select(Job))}
        assert jobs["sum"].recorded == 5
        await session.rollback()
    assert ran == ["first", "next", "last"]


async def test_a_failure_is_drained(sessions: Sessions) -> None:
    flow = Workflow()
    flow.add("bad", Step.new({"fail": True}))
    flow.add("next", Step.new(), deps="bad")
    async with sessions() as session:
        session.add(flow)
        await drain_queue(session, with_safety=True)
        states = {job.meta["name"]: job.state.value for job in await session.scalars(select(Job))}
        await session.rollback()
    assert states == {"bad": "discarded", "next": "cancelled"}


async def test_a_chain_is_drained(sessions: Sessions) -> None:
    async with sessions() as session:
        session.add_all([Chained.new({"n": n}) for n in range(3)])
        assert (await drain_queue(session))["completed"] == 3
        await session.rollback()
    assert ran == ["0", "1", "2"]
