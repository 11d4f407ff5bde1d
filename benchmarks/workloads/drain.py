"""B4, B8: run jobs that do nothing, in an otherwise empty table and in a full one."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks.contestant import BARE, Drains
from benchmarks.workload import Measured, Target, Workload, beside, itself

CPU = "CPU of the process, µs/job"
PATIENCE = 5.0
"""Seconds after which a run is stopped. Its rate is that of the jobs finished until then."""


def drain(limit: int) -> Callable[[Drains, int], Awaitable[Measured]]:
    async def measure(contestant: Drains, count: int) -> Measured:
        before = await contestant.number(contestant.finished)
        await contestant.enqueue_many(count)
        started, cpu = time.perf_counter(), time.process_time()
        patience = asyncio.timeout(PATIENCE)
        try:
            async with patience:
                await contestant.drain(count, limit)
        except TimeoutError:
            if not patience.expired():
                raise
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        finished = await contestant.number(contestant.finished) - before
        if patience.expired():
            assert 0 < finished <= count, f"{finished} of {count} jobs are finished"
        else:
            await contestant.expect(contestant.waiting, 0)
            assert finished == count, f"{finished} jobs are finished instead of {count}"
        return Measured({"jobs/s": finished / seconds, CPU: cpu / finished * 1e6})

    return measure


WORKLOADS = (
    Workload(
        "B4",
        "run {count} jobs that do nothing, 20 at once",
        Drains,
        drain(20),
        10_000,
        (
            Target("at least 4 times oban-py", beside("B4", "jobs/s", "oban_py"), 4),
            Target("at least 2 times pgqueuer", beside("B4", "jobs/s", "pgqueuer"), 2),
            Target("at least 0.6 times the bare SQL", beside("B4", "jobs/s", BARE), 0.6),
            Target("at most 50 µs of CPU in the process per job", itself("B4", CPU), at_most=50),
        ),
    ),
    Workload(
        "B4b",
        "run {count} jobs that do nothing, 100 at once",
        Drains,
        drain(100),
        10_000,
        (
            Target("at least 4 times oban-py", beside("B4b", "jobs/s", "oban_py"), 4),
            Target("at least 1.3 times pgqueuer", beside("B4b", "jobs/s", "pgqueuer"), 1.3),
        ),
        most_runs=2,
    ),
    Workload(
        "B8",
        "run {count} jobs, 20 at once, in a table with 70 times as many finished and future jobs",
        Drains,
        drain(20),
        10_000,
        (
            Target(
                "at least 0.9 times the rate in an empty table",
                lambda results: results.median("B8", "jobs/s") / results.median("B4", "jobs/s"),
                0.9,
            ),
        ),
        full=True,
    ),
)
