"""B33, B34: steps of workflows beside plain jobs, and the release of very many steps."""

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
    """A workflow: one step, `width` steps that wait for it, and one that waits for all of these."""
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
    """Complete steps, and return the seconds until the waiting steps are released."""
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
        f"run {{count}} jobs, {LIMIT} at once, as plain jobs and as workflows of {STEPS} steps",
        Entrant,
        workflows,
        10_000,
        (
            Target(
                "steps: at least 0.5 times the rate of plain jobs", within("B33", GRAPH, PLAIN), 0.5
            ),
        ),
    ),
    Workload(
        "B34",
        "release {count} steps that wait for one step, and one step that waits for {count} steps",
        Entrant,
        fans,
        10_000,
        (
            Target("fan-out: at most 1 s", itself("B34", OUT), at_most=1),
            Target("fan-in: at most 1 s", itself("B34", IN), at_most=1),
        ),
        most_runs=2,
    ),
)
