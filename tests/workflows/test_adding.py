"""Valid parts of a workflow, and its insertion through every kind of conn."""

import asyncio
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import func, inspect, select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, selectinload, sessionmaker

from oban_sqla import Job, JobState, Oban, ObanError, Workflow
from oban_sqla.workflows.step import Step as Row
from tests.conftest import StartOban
from tests.models_as_arguments import Base, Order
from tests.workflows.conftest import Sessions, jobs_of, loaded, states
from tests.workflows.workers import Step


def diamond(**options: object) -> Workflow:
    flow = Workflow("diamond", **options)  # type: ignore[arg-type]
    top = flow.add("top", Step.new())
    sides = [flow.add(side, Step.new(), deps=top) for side in ("left", "right")]
    flow.add("bottom", Step.new(), deps=sides)
    return flow


async def count(sessions: Sessions) -> list[int]:
    """The numbers of rows of workflows, steps and jobs."""
    async with sessions() as session:
        tables = (Workflow, Row, Job)
        return [
            await session.scalar(select(func.count()).select_from(table)) or 0 for table in tables
        ]


async def test_a_session_adds_a_workflow(sessions: Sessions) -> None:
    flow = diamond(meta={"file": "a.csv"})
    async with sessions.begin() as session:
        session.add(flow)
        await session.flush()
        assert inspect(flow).persistent
        assert flow.jobs == [*flow.steps.values()]
    found = await loaded(sessions, flow.id)
    assert (found.name, found.meta["file"], found.progress) == ("diamond", "a.csv", (0, 4))
    assert found.steps["bottom"].meta["deps"] == ["left", "right"]
    assert states(found) == {
        "top": "available",
        "left": "suspended",
        "right": "suspended",
        "bottom": "suspended",
    }
    # The form that Oban Web reads.
    assert (found.available, found.suspended) == (1, 3)
    assert found.meta["workers"] == ["flows.step"]


async def test_a_rollback_leaves_no_trace(sessions: Sessions) -> None:
    flow, other = diamond(), diamond()
    async with sessions() as session:
        async with session.begin():
            session.add(other)
            await session.flush()
            savepoint = await session.begin_nested()
            session.add(flow)
            await session.flush()
            await savepoint.rollback()
        assert await count(sessions) == [1, 4, 4]
        async with session.begin():
            session.add(flow)
    assert await count(sessions) == [2, 8, 8]
    assert states(await loaded(sessions, flow.id)) == states(await loaded(sessions, other.id))


async def test_arguments_may_be_pending_rows(sessions: Sessions) -> None:
    flow = Workflow()
    order = Order()
    flow.add("first", Step.new({"order": order}))
    flow.add("next", Step.new({"order": order}), deps="first")
    async with sessions.begin() as session:
        await session.run_sync(lambda s: Base.metadata.create_all(s.connection()))
        session.add_all([flow, order])
    assert await count(sessions) == [1, 2, 2]
    assert all("1" in str(job.args["order"]) for job in await jobs_of(sessions))


async def test_an_instance_adds_a_workflow_without_conn(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    flow = await Oban(engine).enqueue(diamond())
    assert await count(sessions) == [1, 4, 4]
    assert flow.steps["top"].id > 0


async def test_a_sqlalchemy_connection_adds_a_workflow(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    oban = Oban(engine)
    async with engine.connect() as connection:
        await oban.enqueue(diamond(), conn=connection)
        await connection.rollback()
        assert await count(sessions) == [0, 0, 0]
        await oban.enqueue(diamond(), conn=connection)
        await connection.commit()
    assert await count(sessions) == [1, 4, 4]


async def test_a_psycopg_connection_adds_a_workflow(
    sessions: Sessions, engine: AsyncEngine, postgres_dsn: str, prefix: str
) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        await Oban(engine, prefix=prefix).enqueue(diamond(), conn=connection)
    assert await count(sessions) == [1, 4, 4]


async def test_a_sync_session_adds_a_workflow(
    sessions: Sessions, session_factory: sessionmaker[Session]
) -> None:
    def add() -> None:
        with session_factory.begin() as session:
            session.add(diamond())

    await asyncio.to_thread(add)
    assert await count(sessions) == [1, 4, 4]


async def test_a_second_unique_workflow_is_a_duplicate(sessions: Sessions) -> None:
    first, second = diamond(unique=True), diamond(unique=True)
    async with sessions.begin() as session:
        session.add(first)
    async with sessions.begin() as session:
        session.add(second)
        await session.flush()
        assert second not in session
    assert not first.conflict
    assert (second.conflict, second.id) == (True, first.id)
    assert await count(sessions) == [1, 4, 4]


async def test_a_unique_workflow_that_has_ended_is_no_duplicate(
    start: StartOban, sessions: Sessions
) -> None:
    oban = await start(queues={"default": 10})
    first = await oban.enqueue(diamond(unique=True))
    assert (await oban.enqueue(diamond(unique=True))).conflict
    await oban.wait(first, timeout=20)
    second = await oban.enqueue(diamond(unique=True))
    assert (second.conflict, second.id != first.id) == (False, True)
    # Any number of ended workflows may have the name.
    await oban.wait(second, timeout=20)
    assert await count(sessions) == [2, 8, 8]


async def test_two_transactions_add_one_unique_workflow(sessions: Sessions) -> None:
    async def add() -> bool:
        flow = diamond(unique=True)
        async with sessions.begin() as session:
            session.add(flow)
        return flow.conflict

    conflicts = await asyncio.gather(*(add() for _ in range(8)))
    assert sorted(conflicts) == [False] + [True] * 7
    assert await count(sessions) == [1, 4, 4]


async def test_steps_are_scheduled(sessions: Sessions) -> None:
    flow = diamond(schedule_in=timedelta(hours=1))
    async with sessions.begin() as session:
        session.add(flow)
    assert states(flow)["top"] == "scheduled"


async def test_steps_are_added_to_a_running_workflow(sessions: Sessions) -> None:
    flow = diamond()
    flow.add_last("cleanup", Step.new())
    async with sessions.begin() as session:
        session.add(flow)
    async with sessions.begin() as session:
        stored = await session.get_one(Workflow, flow.id)
        stored.add("more", Step.new(), deps=["bottom", "top"])
        stored.add("at-once", Step.new())
    found = await loaded(sessions, flow.id)
    assert (found.total, found.open, found.lasts) == (7, 6, 1)
    assert (states(found)["more"], states(found)["at-once"]) == ("suspended", "available")
    async with sessions() as session:
        rows = {row.name: row for row in await session.scalars(select(Row))}
    assert rows["more"].waits == 2
    assert rows["bottom"].dependents == [rows["more"].job_id]
    async with sessions() as session:
        stored = await session.get_one(Workflow, flow.id)
        stored.add("top", Step.new())
        with pytest.raises(ValueError, match="has a step 'top' already"):
            await session.flush()


async def test_the_delay_of_an_added_step_counts_from_the_end_of_its_dep(
    start: StartOban, sessions: Sessions
) -> None:
    oban = await start(queues={"default": 10})
    flow = Workflow()
    flow.add("first", Step.new())
    flow.add("open", Step.new(schedule_in=3600))
    await oban.enqueue(flow)
    done = await oban.wait(flow.steps["first"], timeout=20)
    async with sessions.begin() as session:
        stored = await session.get_one(Workflow, flow.id)
        stored.add("later", Step.new(), deps="first", after=timedelta(days=1))
        now = stored.add("now", Step.new(), deps="first", after=0)
        stored.add("waits", Step.new(), deps=["first", "open", "open"], after=60)
    await oban.wait(now, timeout=20)
    found = await loaded(sessions, flow.id)
    assert (states(found)["later"], states(found)["waits"]) == ("scheduled", "suspended")
    assert done.completed_at is not None
    due = found.steps["later"].scheduled_at
    assert abs(due - done.completed_at - timedelta(days=1)) < timedelta(seconds=0.001)


async def test_unknown_deps_are_refused(engine: AsyncEngine) -> None:
    flow = Workflow("import")
    flow.add("extract", Step.new())
    flow.add("load", Step.new(), deps="extrat")
    with pytest.raises(ValueError, match=r"'load' waits for 'extrat', .* did you mean 'extract'"):
        await Oban(engine).enqueue(flow)


async def test_a_circle_of_deps_is_refused(engine: AsyncEngine) -> None:
    flow = Workflow("import")
    flow.add("a", Step.new(), deps="c")
    flow.add("b", Step.new(), deps="a")
    flow.add("c", Step.new(), deps="b")
    with pytest.raises(ValueError, match=r"in a circle: '[abc]' -> '[abc]' -> '[abc]' -> '[abc]'"):
        await Oban(engine).enqueue(flow)


async def test_an_object_that_is_no_step_is_refused(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    flow = Workflow("import")
    job = flow.add("a", Step.new())
    with pytest.raises(ValueError, match="has a step 'a' already"):
        flow.add("a", Step.new())
    with pytest.raises(TypeError, match="step 'b' needs a Job"):
        flow.add("b", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="step 'b' is unique"):
        flow.add("b", Step.new(unique=True))
    with pytest.raises(ValueError, match="after"):
        flow.add("b", Step.new(), after=3)
    with pytest.raises(ValueError, match="on_failure must be one of"):
        flow.add("b", Step.new(), on_failure="explode")  # type: ignore[arg-type]
    empty = Workflow()
    empty.add_last("x", Step.new())
    with pytest.raises(ValueError, match="needs a step beside"):
        await Oban(engine).enqueue(empty)
    with pytest.raises(ValueError, match="needs a step"):
        await Oban(engine).enqueue(Workflow())
    await Oban(engine).enqueue(flow)
    other = Workflow("other")
    with pytest.raises(ValueError, match="was enqueued already"):
        other.add("a", job)
    other.add("b", Step.new(), deps=[job])
    with pytest.raises(ValueError, match="which is no part of it"):
        await Oban(engine).enqueue(other)
    assert job.state is JobState.AVAILABLE


async def test_an_ended_workflow_takes_no_more_steps(sessions: Sessions) -> None:
    flow = diamond()
    async with sessions.begin() as session:
        session.add(flow)
    async with sessions() as session:
        await session.execute(update(Workflow).values(state="completed"))
        stored = await session.get_one(Workflow, flow.id)
        stored.add("more", Step.new())
        with pytest.raises(ObanError, match="has ended, completed"):
            await session.flush()


async def test_a_job_knows_its_workflow(sessions: Sessions) -> None:
    flow = diamond()
    async with sessions.begin() as session:
        session.add_all([flow, Job("plain")])
    async with sessions() as session:
        query = select(Job).options(selectinload(Job.workflow)).order_by(Job.id)
        jobs = (await session.scalars(query)).all()
    assert {job.workflow and job.workflow.id for job in jobs} == {flow.id, None}
