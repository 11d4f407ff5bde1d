"""`oban.why` says for which steps a step waits, and for which job a job of a chain waits."""

import pytest
from sqlalchemy import Text, cast, func, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Batch, Chain, Job, JobState, Oban, Workflow
from oban_sqla.workflows.step import Step as StepRow
from tests.conftest import Add
from tests.workflows.conftest import Sessions
from tests.workflows.workers import Step


@pytest.fixture
def client(engine: AsyncEngine, prefix: str) -> Oban:
    """An instance that runs no queues."""
    return Oban(engine, prefix=prefix)


class Entry(Step, name="reasons.entry", chain="account"):
    """A job of a chain."""


class Held(Step, name="reasons.held", chain=Chain("account", on_discard="hold")):
    """A job of a chain that is held by a discarded job."""


async def reasons(client: Oban, flow: Workflow) -> dict[str, str]:
    return {name: await client.why(job) for name, job in flow.steps.items()}


async def test_why_names_the_deps_of_a_step(client: Oban) -> None:
    flow = Workflow("import")
    flow.add("extract", Step.new())
    flow.add("load", Step.new())
    flow.add("one", Step.new(), deps="load")
    flow.add("two", Step.new(), deps=["load", "extract"])
    flow.add_last("cleanup", Step.new())
    await client.enqueue(flow)
    assert await reasons(client, flow) == {
        "extract": "no node runs the queue default",
        "load": "no node runs the queue default",
        "one": "it waits for step load",
        "two": "it waits for steps extract, load",
        "cleanup": "it waits until all other steps of its workflow have ended",
    }


async def test_why_counts_many_steps(client: Oban) -> None:
    flow = Workflow()
    parts = [flow.add(f"load-{n}", Step.new()) for n in range(12)]
    report = flow.add("report", Step.new(), deps=parts)
    await client.enqueue(flow)
    named = ", ".join(f"load-{n}" for n in range(10))
    assert await client.why(report) == f"it waits for steps {named} and 2 more"


async def test_why_names_a_step_of_a_workflow_within(client: Oban) -> None:
    flow, inner = Workflow("outer"), Workflow("inner")
    inner.add("part", Step.new())
    flow.add_workflow("parts", inner)
    report = flow.add("report", Step.new(), deps="parts")
    await client.enqueue(flow)
    assert await client.why(report) == "it waits for step part"


async def test_why_explains_a_callback(client: Oban, sessions: Sessions) -> None:
    batch = Batch([Step.new()], on_discarded=Step.new())
    async with sessions.begin() as session:
        session.add(batch)
    (callback,) = [job for job in batch.steps.values() if job.state == JobState.SUSPENDED]
    assert await client.why(callback) == "it waits for on_discarded of its workflow"


async def test_why_names_a_held_step(client: Oban) -> None:
    flow = Workflow()
    load = flow.add("load", Step.new())
    report = flow.add("report", Step.new(), deps="load", on_failure="hold")
    await client.enqueue(flow)
    await client.cancel_jobs(load.id)
    assert await client.why(report) == "it is held until step load succeeds: retry what failed"


async def test_why_names_a_step_to_be_released(client: Oban, sessions: Sessions) -> None:
    flow = Workflow()
    flow.add("load", Step.new())
    report = flow.add("report", Step.new(), deps="load")
    await client.enqueue(flow)
    async with sessions.begin() as session:
        await session.execute(update(StepRow).values(ended="completed"))
    assert await client.why(report) == (
        "the steps that it waited for have ended: the leader makes it available"
    )


async def test_why_names_the_job_before_in_a_chain(client: Oban, add: Add) -> None:
    first, second, third, _other = await add(
        *(Entry.new({"account": account}) for account in (1, 1, 1, 2))
    )
    waits = f"it waits for job {first} of its chain reasons.entry:[1], which is available"
    assert await client.why(second) == waits
    assert await client.why(third) == f"{waits}; 1 more job is before it"


async def test_why_names_a_held_chain(client: Oban, add: Add, sessions: Sessions) -> None:
    first, second = await add(*(Held.new({"account": 1}) for _ in range(2)))
    async with sessions.begin() as session:
        change = update(Job).where(Job.id == first)
        await session.execute(change.values(state=JobState.DISCARDED))
    assert await client.why(second) == (
        f"it waits for job {first} of its chain reasons.held:[1], which is discarded: retry it or"
        " delete it"
    )


async def test_why_names_a_job_of_a_free_chain(client: Oban, add: Add, sessions: Sessions) -> None:
    first, second = await add(*(Entry.new({"account": 1}) for _ in range(2)))
    async with sessions.begin() as session:
        change = update(Job).where(Job.id == first)
        await session.execute(change.values(state=JobState.COMPLETED))
    assert await client.why(second) == (
        "no job of its chain reasons.entry:[1] runs: the leader makes the next one available"
    )


@pytest.mark.parametrize("deps", ["null", '"load"', "[1, null, {}, []]"])
async def test_why_accepts_deps_of_any_form(client: Oban, sessions: Sessions, deps: str) -> None:
    flow = Workflow()
    flow.add("load", Step.new())
    report = flow.add("report", Step.new(), deps="load")
    await client.enqueue(flow)
    path, value = cast(["deps"], ARRAY(Text)), cast(cast(deps, Text), JSONB)
    async with sessions.begin() as session:
        await session.execute(update(Job).values(meta=func.jsonb_set(Job.meta, path, value)))
    assert await client.why(report)
