"""`Finding`: a result of a check."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A result of a check, and the remedy if there is one."""

    check: str
    level: Level
    text: str
    remedy: str | None = None


Check = Callable[[], AsyncIterator[Finding]]
