"""A workload: what is measured of those that can do it, and what it should come to."""

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .contestant import OURS, PEERS, Contestant

TELLING = 0.2
"""Below that scale the figures tell nothing, but that it works."""

Figures = dict[str, float]
"""What was measured, by name; the name ends with the unit."""


@dataclass(slots=True)
class Measured:
    """What one run came to."""

    figures: Figures
    notes: dict[str, str] = field(default_factory=dict)
    """What is no number, such as a plan."""


class Results:
    """What all runs came to: the figures of each by workload and contestant."""

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
        """Of all runs; `LookupError` if it was not measured."""
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
    """What a workload should come to, as a number that has to be large, or small, enough."""

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
    """One row of the table."""

    name: str
    title: str
    """What is done; `{count}` stands for how often."""
    ability: type[Contestant]
    """What a contestant has to be able to do."""
    measure: Callable[[Any, int], Awaitable[Measured]]
    """Measures a contestant, and raises `AssertionError` if its rows are not as they should be."""
    count: int
    """Of jobs or repetitions, at the full scale."""
    targets: Sequence[Target] = ()
    full: bool = False
    """Whether the table is full of finished and future jobs."""
    most_runs: int = 1_000_000
    """For what takes long, or measures a distribution within one run."""
    at_once: bool = False
    """Whether all contestants may be measured at the same time, since they do nothing."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What to set for the database."""

    def scaled(self, scale: float) -> int:
        return max(20, int(self.count * scale))


def best_peer(workload: str, figure: str) -> Callable[[Results], float]:
    """How many times the rate of the best peer ours is."""
    return lambda results: results.median(workload, figure) / max(results.peers(workload, figure))


def quickest_peer(workload: str, figure: str) -> Callable[[Results], float]:
    """Which part of the time of the quickest peer ours is."""
    return lambda results: results.median(workload, figure) / min(results.peers(workload, figure))


def beside(workload: str, figure: str, contestant: str) -> Callable[[Results], float]:
    """How many times the figure of another contestant ours is."""
    return lambda results: (
        results.median(workload, figure) / results.median(workload, figure, contestant)
    )


def within(workload: str, figure: str, other: str) -> Callable[[Results], float]:
    """How many times another figure of ours this one is."""
    return lambda results: results.median(workload, figure) / results.median(workload, other)


def itself(workload: str, figure: str) -> Callable[[Results], float]:
    return lambda results: results.median(workload, figure)


def percentiles(seconds: Sequence[float], prefix: str = "") -> Figures:
    """The 50th and the 99th of some times, in milliseconds."""
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000

    return {f"{prefix}p50 ms": at(0.5), f"{prefix}p99 ms": at(0.99)}


def as_document(
    results: Results, workloads: Sequence[Workload], scale: float
) -> Mapping[str, Mapping[str, Any]]:
    """The results of each workload beside its targets, to be written as JSON."""
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
