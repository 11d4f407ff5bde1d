"""Vitals: how a node does, as it knows without asking the database."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueVitals:
    """How a queue of the node does."""

    queue: str
    limit: int
    """How many of its jobs run at once at most."""
    executing: int
    """How many run."""
    held: int
    """How many are claimed and wait for their turn."""
    paused: bool


@dataclass(frozen=True, slots=True)
class Vitals:
    """How the node does."""

    queues: tuple[QueueVitals, ...]
    outcomes: int
    """How many outcomes wait to be written."""
    leader: bool
    listening: bool | None
    """Whether LISTEN works; `None` if the node polls by choice."""
    heartbeat_age: float | None
    """Seconds since the last sign of life that was written; `None` before the first one."""
    failures: Mapping[str, int]
    """By service, how many passes in a row have failed; without those that work."""
    stopping: bool
    """Whether the node claims no more jobs, since it stops."""
