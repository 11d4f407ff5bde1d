"""One run in a process of its own: `python -m benchmarks.one WORKLOAD CONTESTANT COUNT DSN`."""

import asyncio
import sys

from .contestant import load
from .workload import measure


def main(workload: str, contestant: str, count: str, dsn: str) -> None:
    """Print the seconds."""
    print(asyncio.run(measure(load(contestant, dsn), workload, int(count))))


if __name__ == "__main__":
    main(*sys.argv[1:])
