"""`Vitals`: the state of a node, without I/O."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueVitals:
    """The state of a queue of the node."""

    queue: str
    limit: int
    """The most jobs that run at once."""
    executing: int
    """The number of running jobs."""
    held: int
    """The number of claimed jobs that wait to start."""
    paused: bool


@dataclass(frozen=True, slots=True)
class Vitals:
    """The state of the node."""

    queues: tuple[QueueVitals, ...]
    outcomes: int
    """The number of outcomes that wait to be written."""
    leader: bool
    listening: bool | None
    """Whether LISTEN works; `None` if the node is configured to poll."""
    heartbeat_age: float | None
    """Seconds since the last heartbeat was written; `None` before the first heartbeat."""
    failures: Mapping[str, int]
    """The number of failed passes in a row, by service. Services that work are left out."""
    stopping: bool
    """Whether the node is stopping, and claims no more jobs."""
