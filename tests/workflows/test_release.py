"""The release of steps: exactly once, and in one statement for thousands."""

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from oban_sqla import Job, JobState, Oban, Workflow
from oban_sqla.runtime import outbox
from oban_sqla.runtime.following import Followed, InTransaction, follow_by
from oban_sqla.workflows import keeper
from oban_sqla.workflows.step import Step as Row
from tests.blocking import pid_of, until_blocked
from tests.conftest import StartOban, Tune
from tests.listening import hear
from tests.workflows.conftest import Sessions, loaded, states
from tests.workflows.workers import Step


@pytest.fixture
def prefix(new_schema: str) -> str:
    return new_schema


async def finish(connection: AsyncConnection, *jobs: Job, wait: bool = True) -> Followed:
    """Complete jobs, as an outcome does, and release the steps that wait for them."""
    ids = [job.id for job in jobs]
    done = {"state": JobState.COMPLETED, "attempt": 1}
    await connection.execute(update(Job).where(Job.id.in_(ids)).values(done))
    return await follow_by(InTransaction(connection), ids, None, wait=wait)


def fan_in(width: int) -> Workflow:
    flow = Workflow()
    parts = [flow.add(f"part-{n}", Step.new()) for n in range(width)]
    flow.add("end", Step.new(), deps=parts)
    return flow


async def test_two_transactions_that_end_the_last_deps_release_a_step(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """The second transaction waits for the first, whatever its snapshot is, and releases once."""
    flow = fan_in(2)
    async with sessions.begin() as session:
        session.add(flow)
    async with engine.connect() as one, engine.connect() as two:
        first = await finish(one, flow.steps["part-0"])
        pid = await pid_of(two)
        second = asyncio.create_task(finish(two, flow.steps["part-1"]))
        await until_blocked(engine, pid)
        assert not second.done()
        await one.commit()
        released = await second
        await two.commit()
    assert (first.wakeup.queues, released.wakeup.queues) == (frozenset(), {"default"})
    assert states(await loaded(sessions, flow.id))["end"] == "available"


async def test_a_release_that_meets_a_lock_is_postponed_as_a_whole(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    flow = fan_in(2)
    async with sessions.begin() as session:
        session.add(flow)
    parts = [flow.steps["part-0"], flow.steps["part-1"]]
    async with engine.connect() as one, engine.connect() as two:
        await finish(one, parts[0])
        late = await finish(two, parts[1], wait=False)
        assert late.late == [parts[1].id]
        await two.commit()
        await one.commit()
        again = await follow_by(InTransaction(two), late.late, None)
        await two.commit()
    assert again.wakeup.queues == {"default"}
    assert states(await loaded(sessions, flow.id))["end"] == "available"


async def test_a_locked_step_delays_the_whole_release(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    flow = fan_in(1)
    async with sessions.begin() as session:
        session.add(flow)
    async with engine.connect() as one, engine.connect() as two:
        await one.execute(select(Job.id).where(Job.id == flow.steps["end"].id).with_for_update())
        late = await finish(two, flow.steps["part-0"])
        await two.commit()
        assert late.late == [flow.steps["part-0"].id]
        assert (await loaded(sessions, flow.id)).open == 2
        await one.rollback()
        await follow_by(InTransaction(two), late.late, None)
        await two.commit()
    assert states(await loaded(sessions, flow.id))["end"] == "available"


async def test_a_stop_tries_a_late_release_once_more(
    engine: AsyncEngine, sessions: Sessions, tune: Tune
) -> None:
    """Otherwise the steps would wait until the leader finds them."""
    tune(outbox, FIRST_DELAY=3600.0)
    tune(keeper, NEWS_DELAY=3600.0)
    oban = Oban(engine, queues={"default": {"limit": 1, "paused": True}})
    await oban.start()
    flow = fan_in(1)
    await oban.enqueue(flow)
    async with engine.connect() as other:
        await other.execute(select(Workflow.id).with_for_update())
        with hear(oban, "ack_stop") as acks:
            await oban.resume_queue("default")
            await acks.counted(1)
        await oban.pause_queue("default")
        assert states(await loaded(sessions, flow.id))["end"] == "suspended"
    await oban.stop()
    assert states(await loaded(sessions, flow.id))["end"] == "available"


async def test_a_repeated_release_changes_nothing(engine: AsyncEngine, sessions: Sessions) -> None:
    flow = fan_in(2)
    async with sessions.begin() as session:
        session.add(flow)
    async with engine.connect() as connection:
        for _ in range(3):
            await finish(connection, flow.steps["part-0"])
        await connection.commit()
    found = await loaded(sessions, flow.id)
    assert (found.open, states(found)["end"]) == (2, "suspended")
    async with sessions() as session:
        waits = await session.scalar(select(Row.waits).where(Row.name == "end"))
    assert waits == 1


async def test_a_retried_step_waits_again_for_all_retried_deps(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    flow = fan_in(2)
    async with sessions.begin() as session:
        session.add(flow)
    one, two, end = flow.steps.values()
    oban = Oban(engine)
    async with engine.begin() as connection:
        await finish(connection, one)
        await finish(connection, two)
    assert await oban.cancel_jobs(end.id) == 1
    ids = [job.id for job in (one, two, end)]
    assert await oban.retry_jobs(select(Job).where(Job.id.in_(ids))) == 3
    found = []
    for job in (None, one, two):
        if job is not None:
            async with engine.begin() as connection:
                await finish(connection, job)
        found.append(states(await loaded(sessions, flow.id))["end"])
    assert found == ["suspended", "suspended", "available"]


def most_rows(node: dict[str, Any]) -> float:
    """The most rows that a node of a plan has read or returned."""
    rows: float = node["Actual Rows"]
    rows += node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
    own = rows * float(node["Actual Loops"])
    return max([own, *map(most_rows, node.get("Plans", ()))])


def explained(connection: AsyncConnection) -> list[Any]:
    """The list to which the plan of each later release on this connection is added."""
    plans: list[Any] = []

    @event.listens_for(connection.sync_connection, "before_cursor_execute")
    def explain(_: Any, cursor: Any, sql: str, params: Any, *_context: Any) -> None:
        if "noted AS" in sql:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
            plans.extend(cursor.fetchone()[0])

    return plans


async def test_other_workflows_are_not_read(engine: AsyncEngine, sessions: Sessions) -> None:
    """A release reads only its own steps, even if the server's statistics are of small tables."""
    async with sessions.begin() as session:
        session.add_all(fan_in(2) for _ in range(3))
    async with sessions.begin() as session:
        await session.execute(text("ANALYZE"))
    flows = [fan_in(2) for _ in range(600)]
    async with sessions.begin() as session:
        session.add_all(flows)
    first, second, _ = flows[300].steps.values()
    async with engine.connect() as connection:
        # As with more rows, which would take longer to insert.
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        plans = explained(connection)
        await finish(connection, first)
        await finish(connection, second)
        await connection.commit()
    assert len(plans) == 2
    assert max(most_rows(plan["Plan"]) for plan in plans) < 100
    assert states(await loaded(sessions, flows[300].id))["end"] == "available"


async def test_the_other_steps_of_a_workflow_are_not_read(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    flow = fan_in(300)
    async with sessions.begin() as session:
        session.add(flow)
    async with engine.connect() as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        plans = explained(connection)
        await finish(connection, flow.steps["part-0"])
        await connection.commit()
    assert len(plans) == 1
    assert most_rows(plans[0]["Plan"]) < 100


OTHERS = (
    "INSERT INTO {}oban_jobs (worker) SELECT 'w' FROM generate_series(1, 10000)",
    "INSERT INTO {}oban_workflows (id) SELECT 'w' || n FROM generate_series(-10000, -1) n",
    "INSERT INTO {}oban_sqla_workflow_steps (job_id, workflow_id, path, name)"
    " SELECT n, 'w' || n, ARRAY['w' || n], 'only' FROM generate_series(-10000, -1) n",
)
COUNTED_TOO_EARLY = """
UPDATE pg_class SET reltuples = 0, relpages = pg_relation_size(oid) / 8192
WHERE relkind IN ('r', 'i') AND relnamespace = CAST(:schema AS regnamespace)
"""


async def test_many_workflows_are_looked_up_if_the_planner_expects_a_single_one(
    engine: AsyncEngine, sessions: Sessions, prefix: str
) -> None:
    """ANALYZE ran before the transaction that inserted all workflows committed.

    A join would compare all pairs of jobs, of steps or of workflows.
    """
    flows = [fan_in(1) for _ in range(100)]
    async with sessions.begin() as session:
        session.add_all(flows)
    async with engine.connect() as connection:
        for others in OTHERS:
            await connection.execute(text(others.format(f"{prefix}.")))
        await connection.execute(text(COUNTED_TOO_EARLY), {"schema": prefix})
        plans = explained(connection)
        await finish(connection, *(flow.steps["part-0"] for flow in flows))
        await connection.rollback()
    assert len(plans) == 1
    # PostgreSQL 16 reads all 10,200 steps, once. All pairs would be 100 times as many.
    assert most_rows(plans[0]["Plan"]) < 20_000


@pytest.mark.torture
async def test_ten_thousand_steps_are_released_by_one_statement(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """A fan-out and a fan-in of 10,000 steps are each released by one statement, within some
    seconds.
    """
    flow = Workflow()
    first = flow.add("first", Step.new())
    parts = [flow.add(f"part-{n}", Step.new(), deps=first) for n in range(10_000)]
    flow.add("end", Step.new(), deps=parts)
    async with sessions.begin() as session:
        session.add(flow)
    async with engine.connect() as connection:
        took = []
        for jobs in ([first], parts):
            began = time.monotonic()
            await finish(connection, *jobs)
            await connection.commit()
            took.append(time.monotonic() - began)
    print(f"fan-out {took[0]:.2f} s, fan-in {took[1]:.2f} s")
    assert states(await loaded(sessions, flow.id))["end"] == "available"
    assert max(took) < 10


async def test_foreign_nodes_leave_suspended_steps_alone(
    start: StartOban, sessions: Sessions
) -> None:
    """Producers claim only available jobs, so a suspended step never runs early."""
    flow = Workflow(on_failure="hold")
    flow.add("first", Step.new(schedule_in=3600))
    flow.add("next", Step.new(), deps="first")
    async with sessions.begin() as session:
        session.add(flow)
    oban = await start(queues={"default": 10})
    plain = await oban.enqueue(Job("flows.step", meta={"name": "plain"}))
    await oban.wait(plain, timeout=20)
    assert states(await loaded(sessions, flow.id)) == {"first": "scheduled", "next": "suspended"}
