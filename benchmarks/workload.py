"""`Workload`: a measurement of contestants, with its targets; `Results`: the measured figures."""

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .contestant import OURS, PEERS, Contestant

TELLING = 0.2
"""Below this scale, the figures mean nothing: the run only shows that all workloads work."""

Figures = dict[str, float]
"""The measured figures, by name. The name ends with the unit."""


@dataclass(slots=True)
class Measured:
    """The result of one run."""

    figures: Figures
    notes: dict[str, str] = field(default_factory=dict)
    """Texts, such as the plan of a statement."""


class Results:
    """The figures of all runs, by workload and contestant."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, dict[str, list[float]]]] = {}
        self.notes: dict[str, dict[str, str]] = {}

    def add(
        self, workload: str, contestant: str, figures: Figures, notes: Mapping[str, str]
    ) -> None:
        self.notes.setdefault(workload, {}).update(notes)
        own = self.figures.setdefault(workload, {}).setdefault(contestant, {})
        for name, figure in figures.items():
            own.setdefault(name, []).append(figure)

    def median(self, workload: str, figure: str, contestant: str = OURS) -> float:
        """The median of all runs; `LookupError` if the figure was not measured."""
        return statistics.median(self.figures[workload][contestant][figure])

    def peers(self, workload: str, figure: str) -> list[float]:
        """The medians of the peers; `LookupError` if there are none."""
        measured = [
            self.median(workload, figure, peer)
            for peer in PEERS
            if figure in self.figures[workload].get(peer, ())
        ]
        if not measured:
            raise LookupError(f"no peer was measured in {workload}")
        return measured


@dataclass(frozen=True, slots=True)
class Target:
    """A number computed from the results, and its least or largest value."""

    says: str
    value: Callable[[Results], float]
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """A measurement, which contestants with an ability take part in."""

    name: str
    title: str
    """The description. `{count}` is replaced by the number of jobs or repetitions."""
    ability: type[Contestant]
    """The class from which contestants must inherit to take part."""
    measure: Callable[[Any, int], Awaitable[Measured]]
    """Measures a contestant; `AssertionError` if it left wrong rows."""
    count: int
    """The number of jobs or repetitions at scale 1."""
    targets: Sequence[Target] = ()
    full: bool = False
    """Whether the table is full of finished and future jobs."""
    most_runs: int = 1_000_000
    """The most runs: few for a long workload, and for one that measures a distribution."""
    at_once: bool = False
    """Whether all contestants run at the same time, since they are idle."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of the database."""

    def scaled(self, scale: float) -> int:
        return max(20, int(self.count * scale))


def best_peer(workload: str, figure: str) -> Callable[[Results], float]:
    """The ratio of our rate to the highest rate of a peer."""
    return lambda results: results.median(workload, figure) / max(results.peers(workload, figure))


def quickest_peer(workload: str, figure: str) -> Callable[[Results], float]:
    """The ratio of our time to the shortest time of a peer."""
    return lambda results: results.median(workload, figure) / min(results.peers(workload, figure))


def beside(workload: str, figure: str, contestant: str) -> Callable[[Results], float]:
    """The ratio of our figure to that of another contestant."""
    return lambda results: (
        results.median(workload, figure) / results.median(workload, figure, contestant)
    )


def within(workload: str, figure: str, other: str) -> Callable[[Results], float]:
    """The ratio of two figures of ours."""
    return lambda results: results.median(workload, figure) / results.median(workload, other)


def itself(workload: str, figure: str) -> Callable[[Results], float]:
    """Our figure itself."""
    return lambda results: results.median(workload, figure)


def percentiles(seconds: Sequence[float], prefix: str = "") -> Figures:
    """The 50th and the 99th percentile of times, in milliseconds."""
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000

    return {f"{prefix}p50 ms": at(0.5), f"{prefix}p99 ms": at(0.99)}


def as_document(
    results: Results, workloads: Sequence[Workload], scale: float
) -> Mapping[str, Mapping[str, Any]]:
    """The results and targets of each workload, for a JSON file."""
    return {
        one.name: {
            "title": one.title.format(count=f"{one.scaled(scale):,}"),
            "figures": results.figures.get(one.name, {}),
            "notes": results.notes.get(one.name, {}),
            "targets": [_judged(target, results) for target in one.targets],
        }
        for one in workloads
    }


def _judged(target: Target, results: Results) -> dict[str, Any]:
    try:
        value = target.value(results)
    except LookupError:
        return {"says": target.says, "value": None, "met": None}
    return {"says": target.says, "value": value, "met": target.met(value)}
