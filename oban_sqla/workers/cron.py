"""Cron entries: when a worker's jobs are enqueued by themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

CatchUp = Literal["last", "all"] | None


@dataclass(frozen=True, slots=True)
class Cron:
    """When a worker's jobs are enqueued, and what becomes of ticks that were missed."""

    expr: str
    timezone: str | None = None
    """`None` for the time zone of the instance."""
    catch_up: CatchUp = "last"
    """Of the ticks that came while no leader ran: enqueue the last one, all, or none."""


def parse(given: str | Mapping[str, Any]) -> Cron:
    """An entry as a worker declares it: an expression, or a mapping with `expr`."""
    return Cron(given) if isinstance(given, str) else Cron(**given)
