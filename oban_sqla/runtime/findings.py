"""Findings: what a check of the database or of the nodes has found."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and the remedy if there is one."""

    check: str
    level: Level
    text: str
    remedy: str | None = None


Check = Callable[[], AsyncIterator[Finding]]


def ago(seconds: float) -> str:
    """How long ago, in words."""
    return f"{duration(seconds)} ago"


def duration(seconds: float) -> str:
    """How long, in words."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} seconds" if seconds < 10 else f"{seconds:.0f} seconds"
