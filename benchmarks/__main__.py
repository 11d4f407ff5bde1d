"""`python -m benchmarks`: measure oban_sqla, the bare SQL, and the installed peers.

All contestants use one server, with PostgreSQL's default durability. Each run has a process and a
fresh database of its own. The contestants take turns. Compare the medians of one call only.
"""

import argparse
import json
import os
import platform
import statistics
import sys
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
from rich.table import Table

from oban_sqla.embedded import embedded_postgres

from .contestant import BARE, NAMES, entrant
from .server import Server, StepError, step
from .workload import TELLING, Results, Workload, as_document
from .workloads import WORKLOADS

PACKAGES = {
    "oban_py": "oban",
    "procrastinate": "procrastinate",
    "pgqueuer": "pgqueuer",
    "dbos": "dbos",
}
"""The packages that contestants need."""
TOGETHER = 5
"""How many contestants run at the same time at a scale whose figures mean nothing."""
SHOWN = (
    *("oban-sqla", "sqlalchemy", "psycopg", "asyncpg"),
    *("oban", "procrastinate", "pgqueuer", "dbos"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "workloads", nargs="*", help=f"names of workloads (default: all): {', '.join(WORKLOADS)}"
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each contestant (default: 3)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="factor for the number of jobs (default: 1)"
    )
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    given = parser.parse_args()
    if unknown := set(given.workloads) - WORKLOADS.keys():
        parser.error(f"there is no workload {unknown.pop()!r}; there are {', '.join(WORKLOADS)}")
    wanted = [WORKLOADS[name] for name in given.workloads or WORKLOADS]
    installed = [name for name in NAMES if find_spec(PACKAGES.get(name, "oban_sqla"))]
    # `idle` finds the statements of a database in the log by its name.
    with embedded_postgres(settings={"log_line_prefix": "%d "}) as dsn:
        meeting = Meeting(Server(dsn, given.scale), installed, given.runs, given.scale)
        about = machine(dsn)
        for number, workload in enumerate(wanted, 1):
            meeting.hold(workload)
            if workload.name in meeting.results.figures:
                show(workload, given.scale, meeting.results)
            if given.json:  # after each workload, so that an interrupt loses no figures
                document = {
                    "scale": given.scale,
                    "runs": given.runs,
                    "seconds": round(meeting.seconds),
                    "machine": about,
                    "workloads": as_document(meeting.results, wanted[:number], given.scale),
                }
                given.json.write_text(json.dumps(document, indent=2) + "\n")
    judge(as_document(meeting.results, wanted, given.scale), given.scale)
    for failure in meeting.failures:
        say(failure)
    if meeting.failures:
        raise SystemExit(1)


class Meeting:
    """Runs all contestants on one server, one workload after the other. Failures are collected."""

    def __init__(self, server: Server, installed: Sequence[str], runs: int, scale: float) -> None:
        self.results = Results()
        self.failures: list[str] = []
        self._server = server
        self._installed = installed
        self._runs = runs
        self._scale = scale
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def hold(self, workload: Workload) -> None:
        """Measure all contestants that have the ability, in turn."""
        able = [name for name in self._installed if issubclass(entrant(name), workload.ability)]
        together = TOGETHER if self._scale < TELLING else 1
        with ThreadPoolExecutor(together) as threads:
            prepared = threads.map(partial(self._prepare, workload), able)
            ready = [name for name, done in zip(able, prepared, strict=True) if done]
        rounds = min(self._runs, workload.most_runs)
        turns = [name for _ in range(rounds) for name in ready]
        with ThreadPoolExecutor(len(able) if workload.at_once else together) as threads:
            for name, found in zip(
                turns, threads.map(partial(self._measure, workload), turns), strict=True
            ):
                if found is not None:
                    self.results.add(workload.name, name, found["figures"], found["notes"])

    def _prepare(self, workload: Workload, contestant: str) -> bool:
        try:
            self._server.prepare(contestant, workload.full)
        except StepError as error:
            self._fail(workload, contestant, error)
            return False
        return True

    def _measure(self, workload: Workload, contestant: str) -> dict[str, Any] | None:
        count = str(workload.scaled(self._scale))
        with self._server.database(
            contestant, full=workload.full, settings=workload.settings
        ) as dsn:
            began = time.monotonic()
            try:
                said = step("measure", contestant, dsn, workload.name, count)
            except StepError as error:
                self._fail(workload, contestant, error)
                return None
        took = time.monotonic() - began
        say(f"{self.seconds:4.0f} s  {workload.name:4} {contestant}: {took:.1f} s")
        found: dict[str, Any] = json.loads(said)
        return found

    def _fail(self, workload: Workload, contestant: str, error: StepError) -> None:
        self.failures.append(f"{workload.name} of {contestant} {error}")
        say(f"{self.seconds:4.0f} s  {self.failures[-1]}")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def machine(dsn: str) -> dict[str, Any]:
    """The versions and the machine on which the figures depend."""
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
    """Print all figures of a workload, and the ratio of each rate to that of the bare SQL."""
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


def judge(workloads: Mapping[str, Mapping[str, Any]], scale: float) -> None:
    """Print all targets, and whether they are met."""
    title = (
        "Targets" if scale >= TELLING else "Targets (at this small scale, the figures mean nothing)"
    )
    table = Table(title=title, title_justify="left")
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


STDOUT = Console(width=110)

if __name__ == "__main__":
    main()
