"""Clients of oban_sqla: enqueue without pause from the first line on, and print how many jobs."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from benchmarks.child import ready, told
from benchmarks.contestants.oban_sqla import Entrant


async def main(dsn: str, clients: str, seconds: str) -> None:
    entrant = Entrant(dsn)
    async with entrant, entrant.clients(int(clients)) as enqueues:
        for enqueue in enqueues:
            await enqueue()
        ready()
        await told()
        until = time.monotonic() + float(seconds)
        done = await asyncio.gather(*(_enqueue(enqueue, until) for enqueue in enqueues))
    print(sum(done))


async def _enqueue(enqueue: Callable[[], Awaitable[object]], until: float) -> int:
    done = 0
    while time.monotonic() < until:
        await enqueue()
        done += 1
    return done


asyncio.run(main(*sys.argv[1:]))
