"""Bad input is refused with the step and a remedy, and the caller's transaction can go on."""

from typing import Annotated, Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban_sqla import Batch, From, Job, Oban, ObanError, Worker, Workflow, job
from oban_sqla.workflows.step import Step as Row
from tests.workflows.conftest import Sessions, loaded
from tests.workflows.test_adding import count, diamond
from tests.workflows.workers import Step


class Chained(Worker, name="bad_input.chained", chain=True):
    """A job of a chain."""

    async def process(self, job: Job) -> None: ...


class Once(Worker, name="bad_input.once", unique=True):
    """A unique job."""

    async def process(self, job: Job) -> None: ...


@pytest.fixture
def client(engine: AsyncEngine, prefix: str) -> Oban:
    return Oban(engine, prefix=prefix)


def one_step(name: str | None = "import", **options: Any) -> Workflow:
    flow = Workflow(name, **options)
    flow.add("first", Step.new())
    return flow


async def refused_in(session: AsyncSession, flow: Workflow, error: type[Exception]) -> str:
    """The error of a flush, after which the workflow is expunged."""
    session.add(flow)
    with pytest.raises(error) as raised:
        await session.flush()
    session.expunge(flow)
    return str(raised.value)


async def test_a_refused_workflow_breaks_no_transaction(sessions: Sessions) -> None:
    circle = Workflow("import")
    circle.add("a", Step.new(), deps="b")
    circle.add("b", Step.new(), deps="a")
    async with sessions() as session:
        session.add(Job("before"))
        await session.flush()
        assert "in a circle: " in await refused_in(session, circle, ValueError)
        await session.commit()
    assert await count(sessions) == [0, 0, 1]


async def test_other_workflows_of_a_refused_flush_are_not_lost(sessions: Sessions) -> None:
    ended = one_step()
    async with sessions.begin() as session:
        session.add(ended)
    async with sessions() as session:
        await session.execute(update(Workflow).values(state="completed"))
        stored = await session.get_one(Workflow, ended.id)
        stored.add("more", Step.new())
        session.add_all([one_step("new"), one_step("unique", unique=True)])
        with pytest.raises(ObanError, match=r"has ended, completed\. .* put step 'more' into ano"):
            await session.flush()
        session.expunge(stored)
        await session.commit()
    assert await count(sessions) == [3, 3, 3]


async def test_a_connection_inserts_nothing_before_all_checks(
    client: Oban, engine: AsyncEngine, sessions: Sessions
) -> None:
    flow = one_step()
    flow.graph.drafts["first"].job.args["n"] = float("nan")
    async with engine.connect() as connection:
        with pytest.raises(ValueError, match=r"args.* is nan"):
            await client.enqueue(flow, conn=connection)
        await connection.commit()
    assert await count(sessions) == [0, 0, 0]


@pytest.mark.parametrize("what", ["step", "job", "new job", "workflow", "new workflow"])
async def test_deps_of_another_workflow_are_refused(client: Oban, what: str) -> None:
    other = await client.enqueue(one_step("other"))
    deps = {
        "step": other.steps["first"],
        "job": await client.enqueue(Step.new()),
        "new job": Step.new(),
        "workflow": other,
        "new workflow": one_step("other"),
    }
    flow = Workflow("import")
    flow.add("load", Step.new(), deps=deps[what])
    with pytest.raises(ValueError, match=r"step 'load' waits for <.*, which is no part of it\..*"):
        await client.enqueue(flow)


async def test_a_dep_on_a_pruned_workflow_is_refused(client: Oban, sessions: Sessions) -> None:
    gone = await client.enqueue(one_step("gone"))
    async with sessions.begin() as session:
        for table in (Job, Row, Workflow):
            await session.execute(delete(table))
    flow = one_step()
    flow.add("load", Step.new(), deps=gone)
    with pytest.raises(
        ValueError, match=r"step 'load' waits for .* new workflow with add_workflow"
    ):
        await client.enqueue(flow)
    gone.add("more", Step.new(), deps="first")
    with pytest.raises(ObanError, match=r"was pruned\. .*: put step 'more' into another workflow"):
        await client.enqueue(gone)


async def test_invalid_steps_for_a_running_workflow_are_refused(
    client: Oban, sessions: Sessions
) -> None:
    flow = one_step()
    flow.add_last("last", Step.new())
    await client.enqueue(flow)

    async def refused(error: type[Exception], name: str, dep: str) -> str:
        async with sessions() as session:
            stored = await session.get_one(Workflow, flow.id)
            stored.add(name, Step.new(), deps=dep)
            with pytest.raises(error) as raised:
                await session.flush()
            await session.rollback()
        return str(raised.value)

    assert "step 'more' waits for 'x', which is no step" in await refused(ValueError, "more", "x")
    assert "step 'more' can't wait for 'last'" in await refused(ValueError, "more", "last")
    assert "has a step 'first' already" in await refused(ValueError, "first", "last")
    async with sessions.begin() as session:
        await session.execute(update(Row).where(Row.name == "first").values(ended="discarded"))
    message = await refused(ObanError, "more", "first")
    assert "step 'more' waits for 'first', which was discarded: retry" in message


async def test_a_step_that_was_enqueued_by_itself_is_refused(
    client: Oban, sessions: Sessions
) -> None:
    flow = one_step()
    async with sessions() as session:
        session.add(flow.steps["first"])
        await session.flush()
        message = await refused_in(session, flow, ValueError)
    assert "the job of step 'first' was enqueued already" in message


def test_a_job_in_two_workflows_is_refused() -> None:
    job = Step.new()
    flow, other = Workflow("import"), Workflow("other")
    flow.add("load", job)
    with pytest.raises(ValueError, match=r"the job of step 'it' is step 'load' of workflow '"):
        other.add("it", job)
    with pytest.raises(ValueError, match=r"the job of step 'again' is step 'load' of workflow '"):
        flow.add("again", job)
    with pytest.raises(ValueError, match=r"the job of step '2' is step '1' of workflow '"):
        Batch([one := Step.new(), one])
    with pytest.raises(ValueError, match=r"the job of step 'on_completed' is step '1' of workflow"):
        Batch([one := Step.new()], on_completed=one)


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="Workflow: the name must be a str, not 3"):
        Workflow(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workflow 'import': the name is empty"):
        Workflow("import").add(" ", Step.new())


async def test_a_batch_without_jobs_is_refused(client: Oban) -> None:
    with pytest.raises(ValueError, match=r"needs a step beside .* the callbacks of a batch"):
        await client.enqueue(Batch([], on_exhausted=Step.new()))


def test_a_unique_job_is_refused() -> None:
    flow = Workflow("import")
    with pytest.raises(ValueError, match=r"step 'load' is unique, .* make it with unique=False"):
        flow.add("load", Once.new())
    flow.add("load", Once.new(unique=False))
    with pytest.raises(ValueError, match=r"step '1' is unique, .* make it with unique=False"):
        Batch([Once.new()])


def test_a_job_of_a_chain_is_refused() -> None:
    with pytest.raises(ValueError, match=r"step 'load' is in a chain, .* order the steps with dep"):
        Workflow("import").add("load", Chained.new())


async def test_a_workflow_in_two_places_is_refused(client: Oban, sessions: Sessions) -> None:
    outer, inner = one_step("outer"), one_step("inner")
    with pytest.raises(
        ValueError, match=r"workflow 'u' is unique, which no part .* make the whole"
    ):
        outer.add_workflow("part", one_step("u", unique=True))
    with pytest.raises(ValueError, match="workflow 'outer' can't be a part of itself"):
        outer.add_workflow("part", outer)
    outer.add_workflow("part", inner)
    with pytest.raises(ValueError, match="workflow 'outer' can't be a part of itself"):
        inner.add_workflow("part", outer)
    with pytest.raises(ValueError, match=r"workflow 'inner' is .* a part of another workflow"):
        one_step().add_workflow("part", inner)
    with pytest.raises(ValueError, match="has a step 'part' already"):
        outer.add("part", Step.new())
    with pytest.raises(ValueError, match="'inner' is a part of another workflow: enqueue that one"):
        await client.enqueue(inner)
    async with sessions() as session:
        message = await refused_in(session, inner, ValueError)
        assert "'inner' is a part of another workflow" in message
        session.add_all([inner, outer])
        await session.commit()
    assert await count(sessions) == [2, 2, 2]


async def test_a_value_of_a_step_that_is_no_dep_is_refused(client: Oban) -> None:
    @job(name="bad_input.taker", queue="default")
    def taker(found: Annotated[int, From("extract")] = 0) -> None: ...

    flow = Workflow("import")
    flow.add("extract", Step.new())
    flow.add("load", taker.new())
    with pytest.raises(
        ValueError, match=r"step 'load' takes 'found' from step 'extract', for .* ad"
    ):
        await client.enqueue(flow)


async def test_rolled_back_steps_can_be_added_again(sessions: Sessions) -> None:
    flow = diamond()
    async with sessions.begin() as session:
        session.add(flow)
    async with sessions() as session:
        stored = await session.get_one(Workflow, flow.id)
        for flush in (True, False):
            stored.add("more", Step.new(), deps="top")
            stored.add_workflow("part", one_step("part"))
            if flush:
                await session.flush()
            await session.rollback()
            stored = await session.get_one(Workflow, flow.id)
        stored.add("more", Step.new(), deps="top")
        await session.flush()
        savepoint = await session.begin_nested()
        stored.add("another", Step.new())
        await session.flush()
        await savepoint.rollback()
        stored.add("another", Step.new(), deps="more")
        await session.commit()
    assert await count(sessions) == [1, 6, 6]
    found = await loaded(sessions, flow.id)
    assert (found.total, found.steps["another"].meta["deps"]) == (6, ["more"])
    async with sessions() as session:
        waits = await session.scalars(select(Row.waits).where(Row.name.in_(["more", "another"])))
        assert [*waits] == [1, 1]
