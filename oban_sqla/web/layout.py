"""Layout: arrange the steps of a graph in layers from left to right."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise

HEIGHT = 46
# The width of the boxes of short and of long names, and of a character.
NARROWEST, WIDEST, _CHARACTER = 148, 236, 8
GAP_X, GAP_Y = 36, 12
# The height of the lane of an edge in a layer that it passes through.
_LANE = 12
# The number of times that the layers are sorted by their neighbours.
_SWEEPS = 6

Point = tuple[float, float]
_Vertex = int | tuple[int, int, int]
"""A step, or a place where an edge passes through a layer: both steps and the layer's number."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing: the corners of the steps, and the lines between them."""

    width: float
    height: float
    corners: Mapping[int, Point]
    lines: Sequence[tuple[int, int, str]]
    """The two steps of each line, and its SVG path."""


def box_of(names: Iterable[str]) -> int:
    """The width of boxes in which the names fit beside an icon, except long names."""
    longest = max(map(len, names), default=0)
    return min(max(longest * _CHARACTER + 50, NARROWEST), WIDEST)


def lay_out(
    steps: Sequence[int], dependents: Mapping[int, Iterable[int]], box: int = NARROWEST
) -> Layout:
    """Lay out a graph: each step is right of its deps, and few lines cross.

    Unknown steps are left out. box: the width of the boxes. `graphlib.CycleError` for a cycle.
    """
    known = set(steps)
    edges = [(a, b) for a in steps for b in dict.fromkeys(dependents.get(a, ())) if b in known]
    ranks = _ranks(steps, edges)
    layers: dict[int, list[_Vertex]] = defaultdict(list)
    for step in steps:
        layers[ranks[step]].append(step)
    chains = {(a, b): _chain(a, b, ranks) for a, b in edges}
    for chain in chains.values():
        for vertex in chain[1:-1]:
            assert isinstance(vertex, tuple)
            layers[vertex[2]].append(vertex)
    ordered = _sorted([layers[rank] for rank in sorted(layers)], chains.values())
    return _drawn(ordered, chains, box)


def _ranks(steps: Sequence[int], edges: Iterable[tuple[int, int]]) -> dict[int, int]:
    """The layer of each step, after the layers of all its deps."""
    waits_for: dict[int, list[int]] = {step: [] for step in steps}
    for a, b in edges:
        waits_for[b].append(a)
    ranks: dict[int, int] = {}
    for step in TopologicalSorter(waits_for).static_order():
        ranks[step] = 1 + max((ranks[before] for before in waits_for[step]), default=-1)
    return ranks


def _chain(a: int, b: int, ranks: Mapping[int, int]) -> list[_Vertex]:
    return [a, *((a, b, rank) for rank in range(ranks[a] + 1, ranks[b])), b]


def _sorted(
    layers: list[list[_Vertex]], chains: Iterable[Sequence[_Vertex]]
) -> list[list[_Vertex]]:
    """Sort the steps of each layer by the positions of their neighbours.

    Even sweeps go from left to right, odd sweeps back.
    """
    left, right = (
        defaultdict[_Vertex, list[_Vertex]](list),
        defaultdict[_Vertex, list[_Vertex]](list),
    )
    for chain in chains:
        for one, other in pairwise(chain):
            right[one].append(other)
            left[other].append(one)
    for sweep in range(_SWEEPS):
        neighbours = right if sweep % 2 else left
        for layer in reversed(layers) if sweep % 2 else layers:
            positions = {v: n / max(1, len(own) - 1) for own in layers for n, v in enumerate(own)}
            middles = {v: _middle(positions, neighbours[v], positions[v]) for v in layer}
            layer.sort(key=middles.__getitem__)
    return layers


def _middle(
    positions: Mapping[_Vertex, float], neighbours: Sequence[_Vertex], default: float
) -> float:
    if not neighbours:
        return default
    return sum(positions[one] for one in neighbours) / len(neighbours)


def _drawn(
    layers: Sequence[Sequence[_Vertex]],
    chains: Mapping[tuple[int, int], Sequence[_Vertex]],
    box: int,
) -> Layout:
    sizes = [[HEIGHT if isinstance(v, int) else _LANE for v in layer] for layer in layers]
    heights = [sum(size) + GAP_Y * max(0, len(size) - 1) for size in sizes]
    height = max(heights, default=0)
    corners: dict[_Vertex, Point] = {}
    middles: dict[_Vertex, float] = {}
    for rank, layer in enumerate(layers):
        y = (height - heights[rank]) / 2
        for vertex, size in zip(layer, sizes[rank], strict=True):
            corners[vertex] = rank * (box + GAP_X), round(y, 1)
            middles[vertex] = round(y + size / 2, 1)
            y += size + GAP_Y
    lines = [(a, b, _path(chain, corners, middles, box)) for (a, b), chain in chains.items()]
    width = len(layers) * (box + GAP_X) - GAP_X if layers else 0
    steps = {v: corner for v, corner in corners.items() if isinstance(v, int)}
    return Layout(width, height, steps, lines)


def _path(
    chain: Sequence[_Vertex],
    corners: Mapping[_Vertex, Point],
    middles: Mapping[_Vertex, float],
    box: int,
) -> str:
    """A curve from the right side of a step to the left side of another step."""
    x, y = corners[chain[0]][0] + box, middles[chain[0]]
    drawn = [f"M{x} {y}"]
    for vertex in chain[1:]:
        to_x, to_y = corners[vertex][0], middles[vertex]
        half = (x + to_x) / 2
        drawn.append(f"C{half} {y} {half} {to_y} {to_x} {to_y}")
        x, y = to_x, to_y
        if isinstance(vertex, tuple):
            x += box
            drawn.append(f"H{x}")
    return "".join(drawn)
