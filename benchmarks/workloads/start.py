"""B6, B7: the delay of a job that is enqueued now, and of a scheduled job."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from benchmarks.child import Child
from benchmarks.contestant import OURS, PATIENCE, Starts
from benchmarks.workload import (
    Figures,
    Measured,
    Target,
    Workload,
    itself,
    percentiles,
    quickest_peer,
)

PAUSE = 0.01  # seconds, in which the node writes the last outcome and becomes idle
SPAN = 5.0
LEAD_EACH = 0.004  # seconds per job, to enqueue all before the first is due
FROM_ANOTHER = "from another process, "

Enqueue = Callable[[float], Awaitable[None]]
"""Enqueues a job that is due at the given time; 0 is now."""


async def pickup(contestant: Starts, count: int) -> Measured:
    async with _from_another(contestant) as from_another:
        here = await _pick_up(contestant, count, _from_here(contestant))
        other = await _pick_up(contestant, count, from_another)
    return Measured({**percentiles(here), **percentiles(other, FROM_ANOTHER)})


async def _pick_up(contestant: Starts, count: int, enqueue: Enqueue) -> list[float]:
    took: list[float] = []
    picked_up = asyncio.Event()

    def started(at: float) -> None:
        took.append(time.monotonic() - at)
        picked_up.set()

    before = await contestant.number(contestant.finished)
    async with contestant.node(started):
        for _ in range(5 + count):
            picked_up.clear()
            await enqueue(0.0)
            async with asyncio.timeout(PATIENCE):
                await picked_up.wait()
            await asyncio.sleep(PAUSE)
        await contestant.until(contestant.finished, before + 5 + count)
    return took[5:]


async def punctuality(contestant: Starts, count: int) -> Measured:
    figures: Figures = percentiles(await _await_due(contestant, count, _from_here(contestant)))
    if (
        _name(contestant) == OURS
    ):  # the nodes of peers find scheduled jobs by polling, so another process makes no difference
        async with _from_another(contestant) as from_another:
            late = await _await_due(contestant, count, from_another)
        figures |= percentiles(late, FROM_ANOTHER)
    return Measured(figures)


async def _await_due(contestant: Starts, count: int, enqueue: Enqueue) -> list[float]:
    late: list[float] = []
    all_started = asyncio.Event()

    def started(due: float) -> None:
        late.append(time.time() - due)
        if len(late) == count:
            all_started.set()

    before = await contestant.number(contestant.finished)
    async with contestant.node(started):
        first = time.time() + 0.2 + LEAD_EACH * count
        for number in range(count):
            await enqueue(first + number * SPAN / 500)
        async with asyncio.timeout(PATIENCE):
            await all_started.wait()
        await contestant.until(contestant.finished, before + count)
    return late


def _from_here(contestant: Starts) -> Enqueue:
    def enqueue(due: float) -> Awaitable[None]:
        return contestant.start_at(due) if due else contestant.start_now()

    return enqueue


@asynccontextmanager
async def _from_another(contestant: Starts) -> AsyncIterator[Enqueue]:
    child = await Child.start("enqueuer", _name(contestant), contestant.dsn)
    yield lambda due: child.tell(repr(due))
    await child.end()


def _name(contestant: Starts) -> str:
    return type(contestant).__module__.rpartition(".")[2]


WORKLOADS = (
    Workload(
        "B6",
        "enqueue a job, {count} times, on an idle node: the time until the job's first line",
        Starts,
        pickup,
        100,
        (
            Target(
                "p50: at most 0.9 times that of the best peer",
                quickest_peer("B6", "p50 ms"),
                at_most=0.9,
            ),
            Target("p99: at most that of the best peer", quickest_peer("B6", "p99 ms"), at_most=1),
            Target(
                "from another process, p50: at most 1.1 times that of the best peer",
                quickest_peer("B6", f"{FROM_ANOTHER}p50 ms"),
                at_most=1.1,
            ),
        ),
        most_runs=2,
    ),
    Workload(
        "B7",
        "{count} jobs, due 10 ms apart: the delay of their start",
        Starts,
        punctuality,
        500,
        (
            Target("p99: at most 6 ms", itself("B7", "p99 ms"), at_most=6),
            Target(
                "from another process, p99: at most 6 ms",
                itself("B7", f"{FROM_ANOTHER}p99 ms"),
                at_most=6,
            ),
        ),
        most_runs=1,
    ),
)
