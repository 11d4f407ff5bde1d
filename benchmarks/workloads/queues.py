"""B15: the time until each of many queues of one node runs its first job."""

import asyncio
import time
from typing import Any

from sqlalchemy import event

from benchmarks.contestants.oban_sqla import Entrant, Nothing
from benchmarks.workload import Measured, Target, Workload, itself
from oban_sqla import Oban

EACH = 50
FIRST, LAST = "first queue, s", "last queue, s"


async def queues(contestant: Entrant, count: int) -> Measured:
    names = [f"queue {number}" for number in range(count)]
    await contestant.client.enqueue_many(
        Nothing.new({}, queue=name) for name in names for _ in range(EACH)
    )
    begun: dict[str, float] = {}
    written = 0
    done = asyncio.Event()
    oban = Oban(contestant.engine, queues=dict.fromkeys(names, 10))

    @event.listens_for(oban, "job_start")
    def begin(oban: Oban, start: Any) -> None:
        begun.setdefault(start.job.queue, time.perf_counter() - started)

    @event.listens_for(oban, "ack_stop")
    def add(oban: Oban, stop: Any) -> None:
        nonlocal written
        written += stop.count
        if written == count * EACH:
            done.set()

    started = time.perf_counter()
    async with oban:
        await done.wait()
    await contestant.expect(contestant.finished, count * EACH)
    return Measured({FIRST: min(begun.values()), LAST: max(begun.values())})


WORKLOADS = (
    Workload(
        "B15",
        f"a node with {{count}} queues of {EACH} jobs: the time until the first job of each",
        Entrant,
        queues,
        200,
        (Target("last queue: at most 1 s", itself("B15", LAST), at_most=1),),
        most_runs=1,
    ),
)
