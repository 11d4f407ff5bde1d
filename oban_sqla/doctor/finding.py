"""`Finding`: what a check of the database or of the nodes has found."""

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
