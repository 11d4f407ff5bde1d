"""`python -m benchmarks`: oban_sqla beside the bare SQL, and beside the peers that are installed.

One server for all, with the durability of PostgreSQL's defaults; a fresh database and a process for
each run; the contestants in turn, over and over. What counts is the ratio of medians in one call.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.progress import track
from rich.table import Table

from oban_sqla.embedded import embedded_postgres

from .contestant import BARE, NAMES, entrant
from .server import Server, step
from .workload import Results, Workload, as_document
from .workloads import WORKLOADS

PACKAGES = {"oban_py": "oban", "procrastinate": "procrastinate", "pgqueuer": "pgqueuer"}
"""What a contestant needs, if it is not here anyway."""
SHOWN = ("oban-sqla", "sqlalchemy", "psycopg", "oban", "procrastinate", "pgqueuer", "asyncpg")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(WORKLOADS)}; all by default")
    parser.add_argument("--runs", type=int, default=3, help="of each contestant (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of jobs (1)")
    parser.add_argument("--json", type=Path, help="write all figures to this file, too")
    given = parser.parse_args()
    if unknown := set(given.workloads) - WORKLOADS.keys():
        parser.error(f"there is no workload {unknown.pop()!r}; there are {', '.join(WORKLOADS)}")
    wanted = [WORKLOADS[name] for name in given.workloads or WORKLOADS]
    installed = [name for name in NAMES if find_spec(PACKAGES.get(name, "oban_sqla"))]
    results = Results()
    notes: dict[str, dict[str, str]] = {}
    started = time.monotonic()
    # The name of the database is what the log is read by.
    with embedded_postgres(settings={"log_line_prefix": "%d "}) as dsn:
        server = Server(dsn, given.scale)
        for workload in wanted:
            notes[workload.name] = run(server, workload, installed, given, results)
            show(workload, given.scale, results)
        document = {
            "scale": given.scale,
            "runs": given.runs,
            "seconds": round(time.monotonic() - started),
            "machine": machine(dsn),
            "workloads": as_document(results, wanted, given.scale),
        }
    for name, own in notes.items():
        document["workloads"][name]["notes"] = own
    judge(document["workloads"])
    if given.json:
        given.json.write_text(json.dumps(document, indent=2) + "\n")


def run(
    server: Server,
    workload: Workload,
    installed: Sequence[str],
    given: argparse.Namespace,
    results: Results,
) -> dict[str, str]:
    """Measure all that can do it, in turn; returns what is no number."""
    able = [name for name in installed if issubclass(entrant(name), workload.ability)]
    rounds = min(given.runs, workload.most_runs)
    count = workload.scaled(given.scale)
    measure = partial(_measure, server, workload, count)
    notes: dict[str, str] = {}
    for name in able:
        server.prepare(name, workload.full)
    turns = [name for _ in range(rounds) for name in able]
    with ThreadPoolExecutor(len(able) if workload.at_once else 1) as threads:
        measured = threads.map(measure, turns)
        shown = track(zip(turns, measured, strict=True), workload.name, len(turns), console=STDERR)
        for name, found in shown:
            results.add(workload.name, name, found["figures"])
            notes |= found["notes"]
    return notes


def _measure(server: Server, workload: Workload, count: int, contestant: str) -> dict[str, Any]:
    with server.database(contestant, full=workload.full, settings=workload.settings) as dsn:
        found: dict[str, Any] = json.loads(
            step("measure", contestant, dsn, workload.name, str(count))
        )
    return found


def machine(dsn: str) -> dict[str, Any]:
    """What the figures depend on."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT current_setting('server_version')").fetchone()
    assert row is not None
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "postgresql": row[0],
        **{name: version(name) for name in SHOWN if find_spec(name.replace("-", "_"))},
    }


def show(workload: Workload, scale: float, results: Results) -> None:
    """Print all figures of a workload, and what the rates are beside the bare SQL."""
    table = Table(title=_title(workload, scale), title_justify="left")
    for column in ("", "figure", "median", "least", "most", "of the bare SQL"):
        table.add_column(column, justify="left" if column in ("", "figure") else "right")
    for contestant, own in results.figures[workload.name].items():
        label = contestant
        for figure, values in own.items():
            median = statistics.median(values)
            ratio = ""
            if figure.endswith("/s") and BARE in results.figures[workload.name]:
                ratio = f"{median / results.median(workload.name, figure, BARE):.2f}"
            numbers = (f"{number:,.4g}" for number in (median, min(values), max(values)))
            table.add_row(label, figure, *numbers, ratio)
            label = ""
    STDOUT.print(table)


def judge(workloads: Mapping[str, Mapping[str, Any]]) -> None:
    """Print all targets, and whether they are met."""
    table = Table(title="Targets", title_justify="left")
    for column in ("", "target", "it is", "met"):
        table.add_column(column, justify="right" if column == "it is" else "left")
    for name, own in workloads.items():
        for target in own["targets"]:
            value = "" if target["value"] is None else f"{target['value']:.2f}"
            met = {True: "yes", False: "NO", None: "not measured"}[target["met"]]
            table.add_row(name, target["says"], value, met)
    STDOUT.print(table)


def _title(workload: Workload, scale: float) -> str:
    return f"{workload.name}: {workload.title.format(count=f'{workload.scaled(scale):,}')}"


STDOUT, STDERR = Console(width=110), Console(stderr=True)

if __name__ == "__main__":
    main()
