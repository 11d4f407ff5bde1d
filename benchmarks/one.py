"""Run one step in a process of its own: `python -m benchmarks.one STEP CONTESTANT DSN ...`."""

import asyncio
import json
import sys
from dataclasses import asdict

from .contestant import Drains, entrant
from .workloads import WORKLOADS


async def install(contestant: str, dsn: str) -> None:
    """Create the tables."""
    await entrant(contestant)(dsn).install()


async def fill(contestant: str, dsn: str, finished: str, future: str) -> None:
    """Put finished and future jobs into the tables."""
    kind = entrant(contestant)
    assert issubclass(kind, Drains)
    await kind(dsn).fill(int(finished), int(future))


async def measure(contestant: str, dsn: str, workload: str, count: str) -> None:
    """Print the result of a workload."""
    async with entrant(contestant)(dsn) as own:
        measured = await WORKLOADS[workload].measure(own, int(count))
    print(json.dumps(asdict(measured)))


STEPS = {"install": install, "fill": fill, "measure": measure}

if __name__ == "__main__":
    asyncio.run(STEPS[sys.argv[1]](*sys.argv[2:]))
