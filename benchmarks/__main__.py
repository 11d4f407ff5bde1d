"""`python -m benchmarks`: oban_sqla beside the bare SQL, and beside the peers that are installed.

One server for all, with the durability of PostgreSQL's defaults; a fresh database and a process for
each run; the contestants in turn, over and over. What counts is the ratio of medians in one call.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import psycopg
from rich.console import Console
from rich.progress import track
from rich.table import Table

from oban_sqla.embedded import embedded_postgres

from .contestant import NAMES
from .workload import WORKLOADS

PACKAGES = {"oban_py": "oban", "procrastinate": "procrastinate", "pgqueuer": "pgqueuer"}
"""What a contestant needs, if it is not here anyway."""
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(WORKLOADS)}; all by default")
    parser.add_argument("--runs", type=int, default=5, help="of each contestant (5)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of jobs (1)")
    parser.add_argument("--json", type=Path, help="write all seconds to this file, too")
    given = parser.parse_args()
    wanted = given.workloads or [*WORKLOADS]
    if unknown := set(wanted) - WORKLOADS.keys():
        parser.error(f"there is no workload {unknown.pop()!r}; there are {', '.join(WORKLOADS)}")
    contestants = [name for name in NAMES if find_spec(PACKAGES.get(name, "oban_sqla"))]
    measured: dict[str, dict[str, list[float]]] = {}
    with embedded_postgres() as dsn:
        for workload in wanted:
            count = max(20, int(WORKLOADS[workload][1] * given.scale))
            turns = [name for _ in range(given.runs) for name in contestants]
            seconds: dict[str, list[float]] = defaultdict(list)
            for name in track(turns, workload, console=Console(stderr=True)):
                seconds[name].append(run(dsn, workload, name, count))
            measured[workload] = seconds
            show(workload, count, seconds)
    if given.json:
        given.json.write_text(json.dumps(measured, indent=2) + "\n")


def run(dsn: str, workload: str, contestant: str, count: int) -> float:
    """The seconds of one run, on a fresh database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bench")
        connection.execute("CHECKPOINT")
    own = psycopg.conninfo.make_conninfo(dsn, dbname="bench")
    arguments = [workload, contestant, str(count), url(own)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.one", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            timeout=600,
            check=True,
        )
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DROP DATABASE bench WITH (FORCE)")
    return float(done.stdout.splitlines()[-1])


def url(conninfo: str) -> str:
    """A conninfo as a URL, which asyncpg and SQLAlchemy read, too."""
    parts = psycopg.conninfo.conninfo_to_dict(conninfo)
    return (
        f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}&port={parts['port']}"
    )


def show(workload: str, count: int, seconds: dict[str, list[float]]) -> None:
    """Print how many jobs a second each did, and its ratio to the bare SQL."""
    rates = {name: [count / each for each in own] for name, own in seconds.items()}
    floor = statistics.median(rates["bare"])
    table = Table(title=f"{workload}, {count:,} jobs", title_justify="left")
    for column in ("", "jobs/s", "least", "most", "of the bare SQL"):
        table.add_column(column, justify="left" if column == "" else "right")
    for name, own in rates.items():
        median = statistics.median(own)
        figures = (f"{median:,.0f}", f"{min(own):,.0f}", f"{max(own):,.0f}")
        table.add_row(name, *figures, f"{median / floor:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
