"""`python -m benchmarks.report FIGURES.json`: write the figures into docs/benchmarks.md.

The text between the two marks of the page is replaced.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .contestant import BARE, OURS
from .picture import draw
from .workload import TELLING

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- figures: python -m benchmarks.report -->", "<!-- end of figures -->"
HEADINGS = {OURS: "oban_sqla", "oban_sqla_psycopg": "oban_sqla on psycopg", BARE: "bare SQL"}

Document = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument(
        "figures", type=Path, help="the file that `python -m benchmarks --json` wrote"
    )
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of benchmarks.md")
    given = parser.parse_args()
    document = json.loads(given.figures.read_text())
    page = given.docs / "benchmarks.md"
    page.write_text(rewritten(page.read_text(), "\n".join(report(document))))
    draw(document, given.docs / "benchmarks.svg")


def rewritten(page: str, figures: str) -> str:
    """The page with these figures between its marks; `ValueError` if a mark is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no place for the figures: {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


def report(document: Document) -> Iterator[str]:
    """The lines of the page: the machine, targets, figures and plans."""
    if document["scale"] < TELLING:
        yield from (
            "**At this small scale the figures mean nothing. The run only shows that all works.**",
            "",
        )
    yield from _machine(document)
    yield from ("", "![Rates and times beside the peers and the bare SQL](benchmarks.svg)")
    workloads = document["workloads"]
    yield from ("", "### Targets", "")
    yield from _rows(["", "workload", "target", "measured", "met"], _targets(workloads))
    for name, own in workloads.items():
        yield from ("", f"### {name}: {own['title']}", "")
        names = list(own["figures"])
        header = ["figure", *(HEADINGS.get(one, one.replace("_", "-")) for one in names)]
        yield from _rows(header, _figures(own["figures"]))
        for what, plan in own.get("notes", {}).items():
            yield from ("", f"The plan of {what}:", "", "```none", plan, "```")


def _machine(document: Document) -> Iterator[str]:
    machine = dict(document["machine"])
    runs = document["runs"]
    yield (
        f"Measured on {machine.pop('cores')} cores, with PostgreSQL {machine.pop('postgresql')} and"
        f" Python {machine.pop('python')}, at scale {document['scale']:g}, up to {runs}"
        f" {'run' if runs == 1 else 'runs'} of each workload, in {document['seconds']:,} seconds:"
    )
    yield ", ".join(f"{package} {version}" for package, version in machine.items()) + "."
    yield "A figure is the median of the runs, with the smallest and the largest value in brackets."


def _targets(workloads: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for name, own in workloads.items():
        for target in own["targets"]:
            value = "" if target["value"] is None else f"{target['value']:.2f}"
            met = {True: "yes", False: "**no**", None: "not measured"}[target["met"]]
            yield name, own["title"], target["says"], value, met


def _figures(figures: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[Sequence[str]]:
    for figure in dict.fromkeys(figure for own in figures.values() for figure in own):
        yield figure, *(_spread(own.get(figure)) for own in figures.values())


def _spread(values: Sequence[float] | None) -> str:
    if not values:
        return ""
    median = _number(statistics.median(values))
    if len(values) == 1:
        return median
    return f"{median} ({_number(min(values))} … {_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _rows(header: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield _row(header)
    yield _row(["---"] * len(header))
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
