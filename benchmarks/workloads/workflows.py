"""B33, B34: workflows beside the same jobs without a graph, and fans of very many steps."""

import time

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.contestants.oban_sqla import Entrant, Nothing
from benchmarks.workload import Measured, Target, Workload, itself, within
from oban_sqla import Job, JobState, Workflow
from oban_sqla.runtime.following import InTransaction, follow_by

LIMIT = 20
LOADS = 8
STEPS = LOADS + 2

PLAIN, GRAPH = "no graph, jobs/s", "steps/s"
OUT, IN = "fan-out, s", "fan-in, s"


def fan(width: int) -> Workflow:
    """One step, then so many at once, then one that waits for these."""
    flow = Workflow("fan")
    first = flow.add("first", Nothing.new({"number": 0}))
    parts = [flow.add(f"part-{n}", Nothing.new({"number": n}), deps=first) for n in range(width)]
    flow.add("end", Nothing.new({"number": width}), deps=parts)
    return flow


async def workflows(contestant: Entrant, count: int) -> Measured:
    flows = max(1, count // STEPS)
    jobs = flows * STEPS
    await contestant.enqueue_many(jobs)
    plain = await _drained(contestant, jobs)
    async with AsyncSession(contestant.engine) as session, session.begin():
        session.add_all(fan(LOADS) for _ in range(flows))
    graph = await _drained(contestant, jobs)
    await contestant.expect(contestant.finished, 2 * jobs)
    return Measured({PLAIN: plain, GRAPH: graph})


async def fans(contestant: Entrant, count: int) -> Measured:
    flow = fan(count)
    await contestant.client.enqueue(flow)
    first, *parts, _ = (job.id for job in flow.steps.values())
    return Measured(
        {OUT: await _release(contestant, [first]), IN: await _release(contestant, parts)}
    )


async def _drained(contestant: Entrant, count: int) -> float:
    started = time.perf_counter()
    await contestant.drain(count, LIMIT)
    return count / (time.perf_counter() - started)


async def _release(contestant: Entrant, ids: list[int]) -> float:
    """The seconds to release what waits for jobs, once these are completed."""
    async with contestant.engine.begin() as connection:
        done = {"state": JobState.COMPLETED, "attempt": 1}
        await connection.execute(update(Job).where(Job.id.between(ids[0], ids[-1])).values(done))
        started = time.perf_counter()
        followed = await follow_by(InTransaction(connection), ids, None, wait=True)
        took = time.perf_counter() - started
    assert followed.wakeup, "nothing was released"
    return took


WORKLOADS = (
    Workload(
        "B33",
        f"run {{count}} jobs, as workflows of {STEPS} steps and without a graph, {LIMIT} at once",
        Entrant,
        workflows,
        10_000,
        (Target("at least 0.5 times without a graph", within("B33", GRAPH, PLAIN), 0.5),),
    ),
    Workload(
        "B34",
        "release {count} steps that wait for one, and one step that waits for {count}",
        Entrant,
        fans,
        10_000,
        (
            Target("fan-out: within a second", itself("B34", OUT), at_most=1),
            Target("fan-in: within a second", itself("B34", IN), at_most=1),
        ),
        most_runs=2,
    ),
)
