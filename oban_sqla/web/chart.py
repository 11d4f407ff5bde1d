"""Charts: the shapes of a history, which a template draws as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import floor, log10

from .history import Ended, History
from .show import span

WIDTH, HEIGHT = 600, 100
GAP = 1.5
LEAST = 2.0
"""The height of a part that stands for a few jobs."""
STACK = ("completed", "retryable", "discarded", "cancelled")
"""The states in a bar, from the bottom up."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar."""

    state: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """The bar of a bucket."""

    at: datetime
    """When the bucket begins."""
    x: float
    width: float
    text: str
    """The numbers of the bar in words."""
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars and their labels."""

    bars: Sequence[Bar]
    summary: str
    """The whole chart in words."""
    values: Sequence[str]
    """The values along the side: at the top, in the middle and at the bottom."""
    times: Sequence[datetime]
    """The instants along the bottom."""
    is_empty: bool


def throughput(history: History) -> Chart:
    """The number of jobs that ended in each bucket, by state."""
    top = nice(max((sum(one.counts.values()) for one in history.buckets), default=0))
    bars = []
    for number, bucket in enumerate(history.buckets):
        parts, y = [], float(HEIGHT)
        for state in STACK:
            if count := bucket.counts.get(state, 0):
                # A few failures among many completed jobs stay visible.
                height = max(HEIGHT * count / top, LEAST)
                y -= height
                parts.append(Part(state, round(y, 2), round(height, 2)))
        bars.append(_bar(history, number, _counts(bucket), parts))
    is_empty = not any(bar.parts for bar in bars)
    return Chart(bars, _counts(history.total), _values(top), _times(history), is_empty)


def queue_times(history: History) -> Chart:
    """The waits of jobs in each bucket."""
    known = [one.queue_time or 0.0 for one in history.buckets]
    longest = max(known, default=0.0)
    unit = next((one for one in (3600.0, 60.0) if longest >= 2 * one), 1.0)
    top = unit * nice(longest / unit)
    bars = []
    for number, value in enumerate(known):
        height = max(HEIGHT * value / top, 1.0) if value else 0.0
        part = Part("wait", round(HEIGHT - height, 2), round(height, 2))
        text = _waits(value)
        bars.append(_bar(history, number, text, [part] if value else []))
    said, values = _waits(history.total.queue_time), (span(top), span(top / 2), "0")
    return Chart(bars, said, values, _times(history), not any(known))


def nice(value: float) -> float:
    """The next number above a value that is round, as is its half; or the value itself."""
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return float(
        next(step * power for step in (1, 2, 3, 4, 6, 8, 10) if step * power >= value * 0.999)
    )


def _bar(history: History, number: int, text: str, parts: Sequence[Part]) -> Bar:
    slot = WIDTH / len(history.buckets)
    at = _at(history, number / len(history.buckets))
    return Bar(at, round(number * slot + GAP / 2, 2), round(slot - GAP, 2), text, parts)


def _values(top: float) -> Sequence[str]:
    # A chart of counts has no value between two integers.
    return f"{top:,.0f}", f"{top / 2:,.0f}" if top % 2 == 0 else "", "0"


def _waits(value: float | None) -> str:
    return f"95% began within {span(value)}" if value else "none began"


def _counts(bucket: Ended) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in bucket.counts.items()) or "nothing"


def _times(history: History) -> list[datetime]:
    return [_at(history, part) for part in (0.0, 1 / 3, 2 / 3, 1.0)]


def _at(history: History, part: float) -> datetime:
    until = history.until.replace(tzinfo=UTC)
    return until - timedelta(seconds=history.window * (1 - part))
