"""Draw the figures as SVG: a panel for each figure, a bar for each contestant."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from .contestant import BARE, OURS, PEERS

COLOURS = {
    OURS: "#2563eb",
    "oban_py": "#9333ea",
    "procrastinate": "#d97706",
    "pgqueuer": "#059669",
    BARE: "#9ca3af",
}
PANELS = (
    ("B1", "jobs/s", "enqueue many"),
    ("B3", "jobs/s", "enqueue, one client"),
    ("B3", "16 clients, jobs/s", "enqueue, 16 clients"),
    ("B4", "jobs/s", "run, 20 at once"),
    ("B4b", "jobs/s", "run, 100 at once"),
    ("B8", "jobs/s", "run in a full table"),
    ("B6", "p50 ms", "pickup, p50"),
    ("B6", "from another process, p50 ms", "pickup from elsewhere, p50"),
)
"""Workload, figure, title. Long bars are better for rates, short ones for times."""
COLUMNS = 2


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Draw the measured figures of `PANELS`. Equal figures give equal files."""
    workloads = document["workloads"]
    panels = [
        (title, figure, found)
        for name, figure, title in PANELS
        if name in workloads and (found := _medians(workloads[name]["figures"], figure))
    ]
    if not panels:
        return
    rows = -(-len(panels) // COLUMNS)
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 9})
    canvas = Canvas(figsize=(9, 1.7 * rows), layout="constrained")
    canvas.patch.set_facecolor("white")  # so that the picture can be read on a dark page
    axes = canvas.subplots(rows, COLUMNS, squeeze=False).flat
    for (title, figure, found), own in zip(panels, axes, strict=False):
        _panel(own, title, figure, found)
    for empty in axes:
        empty.set_axis_off()
    canvas.savefig(path, format="svg", metadata={"Date": None})


def _panel(axes: Any, title: str, figure: str, found: Mapping[str, Sequence[float]]) -> None:
    names = list(found)
    medians = [statistics.median(found[name]) for name in names]
    spread = [
        [median - min(found[name]) for name, median in zip(names, medians, strict=True)],
        [max(found[name]) - median for name, median in zip(names, medians, strict=True)],
    ]
    bars = axes.barh(
        [name.replace("_", "-") if name == "oban_py" else name for name in names],
        medians,
        xerr=spread,
        color=[COLOURS[name] for name in names],
        ecolor="#374151",
    )
    axes.bar_label(bars, [_number(median) for median in medians], padding=4)
    unit = "longer is better" if figure.endswith("/s") else "shorter is better"
    axes.set_title(f"{title}: {figure.rpartition(', ')[2]}, {unit}", loc="left", fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_xlim(left=0)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _medians(
    figures: Mapping[str, Mapping[str, Sequence[float]]], figure: str
) -> dict[str, Sequence[float]]:
    order = (OURS, *PEERS, BARE)
    return {name: figures[name][figure] for name in order if figure in figures.get(name, ())}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
