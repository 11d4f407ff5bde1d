"""B33, B34: steps of workflows beside plain jobs, and the release of very many steps."""

import time
from collections.abc import Awaitable

from sqlalchemy import update

from benchmarks.contestant import Drains, RunsWorkflows
from benchmarks.contestants.oban_sqla import Entrant, fan
from benchmarks.workload import Measured, Target, Workload, beside, itself, within
from oban_sqla import Job, JobState
from oban_sqla.runtime.following import InTransaction, follow_by

LIMIT = 20
LOADS = 8
STEPS = LOADS + 2

PLAIN, GRAPH = "no graph, jobs/s", "steps/s"
OUT, IN = "fan-out, s", "fan-in, s"


async def workflows(contestant: RunsWorkflows, count: int) -> Measured:
    flows = max(1, count // STEPS)
    jobs = flows * STEPS
    figures = {}
    if isinstance(contestant, Drains):
        await contestant.enqueue_many(jobs)
        figures[PLAIN] = await _rate(jobs, contestant.drain(jobs, LIMIT))
    await contestant.enqueue_workflows(flows, LOADS)
    figures[GRAPH] = await _rate(jobs, contestant.run_workflows(flows, LOADS, LIMIT))
    await contestant.expect(contestant.finished, len(figures) * jobs)
    return Measured(figures)


async def fans(contestant: Entrant, count: int) -> Measured:
    flow = fan(count)
    await contestant.client.enqueue(flow)
    first, *parts, _ = (job.id for job in flow.steps.values())
    return Measured(
        {OUT: await _release(contestant, [first]), IN: await _release(contestant, parts)}
    )


async def _rate(count: int, work: Awaitable[None]) -> float:
    """How many steps, or jobs, end in a second of the work."""
    started = time.perf_counter()
    await work
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
        RunsWorkflows,
        workflows,
        10_000,
        (
            Target(
                "steps: at least 0.5 times the rate of plain jobs", within("B33", GRAPH, PLAIN), 0.5
            ),
            Target("steps: at least 2 times the rate of DBOS", beside("B33", GRAPH, "dbos"), 2),
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
