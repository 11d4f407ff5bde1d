"""Nodes of oban-py run the steps of our workflows, and leave the suspended ones alone."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated

import oban as oban_py
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Batch, From, Job, JobState, Oban, Workflow, job
from tests.beside_oban.conftest import StartTheirs, Table
from tests.beside_oban.workers import OURS, THEIRS, Ours, Script
from tests.conftest import StartOban
from tests.listening import hear
from tests.runtime.conftest import until
from tests.workflows.conftest import loaded, states

pytestmark = pytest.mark.oban

Sessions = async_sessionmaker[AsyncSession]
Ended = Callable[[Workflow], Awaitable[Workflow]]


@pytest.fixture
async def ended(start_theirs: StartTheirs, start: StartOban, sessions: Sessions) -> Ended:
    """Enqueue a workflow that only oban-py runs, and return it when it has ended.

    oban-py leads, too.
    """
    theirs = await start_theirs(node=THEIRS)
    assert theirs.is_leader
    ours = await start(queues={"other": 1}, node=OURS)

    async def ended(flow: Workflow) -> Workflow:
        with hear(Oban, "workflow_stop") as stops:
            await ours.enqueue(flow)
            await stops.until(lambda events: any(stop.id == flow.id for stop in events))
        assert not ours.is_leader
        return await loaded(sessions, flow.id)

    return ended


async def test_oban_py_completes_steps(ended: Ended) -> None:
    flow = Workflow("import")
    first = flow.add("first", Ours.new())
    parts = [flow.add(f"part-{n}", Ours.new(), deps=first) for n in range(3)]
    flow.add("end", Ours.new(), deps=parts)
    flow.add_last("cleanup", Ours.new())
    done = await ended(flow)
    assert (done.state, done.progress) == ("completed", (6, 6))
    names = {one.id: name for name, one in done.steps.items()}
    ran = [names[id] for side, id in Script.ran if side == THEIRS]
    assert len(ran) == len(Script.ran) == 6
    assert (ran[0], *ran[-2:]) == ("first", "end", "cleanup")


@pytest.mark.parametrize(
    ("job", "outcome"),
    [
        (Ours.new({"do": "fail"}, max_attempts=1), "discarded"),
        (Ours.new({"do": "cancel"}), "cancelled"),
    ],
)
async def test_oban_py_fails_a_step(ended: Ended, job: Job, outcome: str) -> None:
    flow = Workflow("import")
    flow.add("bad", Ours.new(dict(job.args), max_attempts=job.max_attempts))
    flow.add("next", Ours.new(), deps="bad")
    flow.add("after", Ours.new(), deps="next")
    flow.add("anyway", Ours.new(), deps="bad", on_failure="run")
    flow.add_last("cleanup", Ours.new())
    done = await ended(flow)
    assert (done.state, states(done)) == (
        outcome,
        {
            "bad": outcome,
            "next": "cancelled",
            "after": "cancelled",
            "anyway": "completed",
            "cleanup": "completed",
        },
    )
    (error,) = done.steps["next"].errors
    assert error["error"] == f"the step 'bad' that it waits for was {outcome}"
    assert len(Script.ran) == 3


async def test_oban_py_enqueues_the_callbacks_of_a_batch_once(ended: Ended, table: Table) -> None:
    batch = Batch([Ours.new() for _ in range(5)], on_completed=Ours.new(), on_discarded=Ours.new())
    await ended(batch)
    await table.until({"completed": 6, "cancelled": 1})
    assert len(Script.ran) == 6


async def test_oban_py_leaves_suspended_steps_alone(
    start_theirs: StartTheirs, sessions: Sessions, client: oban_py.Oban, table: Table
) -> None:
    """oban-py stages, prunes and rescues as the leader, with no node of ours beside it."""
    flow = Workflow("import")
    flow.add("first", Ours.new())
    flow.add("next", Ours.new(), deps="first")
    flow.add("held", Ours.new(), deps="first", on_failure="hold")
    flow.add_last("cleanup", Ours.new())
    async with sessions.begin() as session:
        session.add(flow)
    theirs = await start_theirs(pruner={"interval": 0.05}, lifeline={"interval": 0.05}, node=THEIRS)
    assert theirs.is_leader
    await table.until({"completed": 1, "suspended": 3})
    plain = [await client.enqueue(Theirs_new(n)) for n in range(20)]
    await table.until({"completed": 21, "suspended": 3})
    assert {id for _, id in Script.ran} == {flow.steps["first"].id, *(one.id for one in plain)}
    found = await loaded(sessions, flow.id)
    assert [found.steps[name].attempt for name in ("next", "held", "cleanup")] == [0, 0, 0]


def Theirs_new(n: int) -> oban_py.Job:  # noqa: N802
    return oban_py.Job(worker=Ours.new().worker, queue="shared", args={"n": n})


@pytest.mark.usefixtures("expect_errors")
async def test_a_value_that_oban_py_recorded_is_refused(
    start_theirs: StartTheirs, start: StartOban, sessions: Sessions
) -> None:
    """oban-py records an Erlang term, which is not taken for the value itself."""
    taken: list[object] = []

    @job(name="beside.take", queue="ours", max_attempts=1)
    def take(found: Annotated[object, From("value")] = None) -> None:
        taken.append(found)

    await start_theirs(node=THEIRS)
    ours = await start(queues={"ours": 1}, node=OURS)
    flow = Workflow("import")
    flow.add("value", Ours.new({"do": "record"}))
    flow.add("take", take.new(), deps="value")
    await ours.enqueue(flow)
    done = await ours.wait(flow, timeout=20)
    (error,) = done.steps["take"].errors
    assert "step 'value' was recorded by another Oban, as an Erlang term" in error["error"]
    assert taken == []


def twenty_steps() -> Workflow:
    """Layers of steps, each of which waits for two steps of the layer before."""
    flow = Workflow("twenty")
    layer = [flow.add(f"0-{n}", Ours.new({"do": "yield"})) for n in range(4)]
    for depth in range(1, 4):
        layer = [
            flow.add(f"{depth}-{n}", Ours.new({"do": "yield"}), deps=[layer[n], layer[(n + 1) % 4]])
            for n in range(4)
        ]
    middle = flow.add("middle", Ours.new(), deps=layer)
    ends = [flow.add(f"end-{n}", Ours.new(), deps=middle) for n in range(2)]
    flow.add("sum", Ours.new(), deps=ends)
    return flow


async def test_nodes_of_both_sides_run_a_workflow_to_its_end(
    start_theirs: StartTheirs, start: StartOban, sessions: Sessions
) -> None:
    for n in range(2):
        await start_theirs(node=f"{THEIRS}-{n}", name=f"{THEIRS}-{n}", queues={"shared": 3})
    for n in range(2):
        ours = await start(
            queues={"shared": 3},
            node=f"{OURS}-{n}",
            name=f"{OURS}-{n}",
            claim_ahead=0,
        )
    flows = [twenty_steps() for _ in range(5)]
    async with sessions.begin() as session:
        session.add_all(flows)
    await asyncio.gather(*(ours.wait(flow, timeout=60) for flow in flows))
    for flow in flows:
        done = await loaded(sessions, flow.id)
        assert (done.state, done.progress) == ("completed", (20, 20))
        steps = done.steps
        for one in steps.values():
            assert (one.state, one.attempt) == (JobState.COMPLETED, 1)
            for dep in one.meta["deps"]:
                ended_at, begun_at = steps[dep].completed_at, one.attempted_at
                assert ended_at is not None
                assert begun_at is not None
                assert begun_at >= ended_at, (one.meta["name"], dep)
    assert {side for side, _ in Script.ran} == {OURS, THEIRS}
    assert set(Counter(id for _, id in Script.ran).values()) == {1}
    await until(lambda: len(Script.ran) == 100)
