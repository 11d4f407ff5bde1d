"""Enqueue a job of a contestant for each line, which has the time of the job; 0 is now."""

import asyncio
import sys

from benchmarks.child import ready, told
from benchmarks.contestant import Starts, entrant


async def main(contestant: str, dsn: str) -> None:
    kind = entrant(contestant)
    assert issubclass(kind, Starts)
    async with kind(dsn) as own:
        ready()
        while line := await told():
            due = float(line)
            await (own.start_at(due) if due else own.start_now())


asyncio.run(main(*sys.argv[1:]))
