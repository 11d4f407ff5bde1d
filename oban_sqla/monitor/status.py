"""Status: what the nodes do, and how many jobs wait, as the database tells it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.database import Database
from ..runtime.presence import Lease, Node, RunningQueue, presence
from ..statements.counts import EXACT, counts


@dataclass(frozen=True, slots=True)
class Count:
    """How many jobs of a queue are in a state."""

    count: int
    estimated: bool
    """Whether the planner guessed, since there are more than `EXACT`."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue that some living node runs, or that has jobs."""

    queue: str
    nodes: int
    """How many living nodes run it."""
    paused: int
    """On how many of those it is paused."""
    limit: int
    """How many of its jobs those run at once."""
    running: int
    """How many they run now."""
    counts: Mapping[str, Count]
    """By state, also one that this version does not know."""
    oldest_available: float | None
    """For how many seconds its oldest available job has been so."""


@dataclass(frozen=True, slots=True)
class Status:
    """What there is in the schema `schema`."""

    schema: str
    nodes: tuple[Node, ...]
    leaders: tuple[Lease, ...]
    queues: tuple[QueueStatus, ...]


async def status(database: Database, *, instance: str | None = None, exact: int = EXACT) -> Status:
    """Read the status, of one `instance` alone if it is named; `SchemaMissingError` without tables,
    `StandbyError` on a standby.

    Jobs belong to no instance: all are counted.
    """
    found = await presence(database, instance=instance)
    jobs = await database.fetch(counts(prefix=found.schema, exact=exact))
    return Status(found.schema, found.nodes, found.leaders, _queues(found.run, jobs))


async def totals(database: Database, *, exact: int = EXACT) -> dict[str, Count]:
    """How many jobs there are, by state; `SchemaMissingError` without tables."""
    prefix = await database.verify()
    found: dict[str, Count] = {}
    for row in await database.fetch(counts(prefix=prefix, exact=exact)):
        before = found.get(row.state, Count(0, False))
        found[row.state] = Count(before.count + row.count, before.estimated or row.estimated)
    return found


def _queues(
    run: Mapping[str, Sequence[RunningQueue]], jobs: Sequence[Any]
) -> tuple[QueueStatus, ...]:
    counted: dict[str, dict[str, Count]] = defaultdict(dict)
    waits: dict[str, float] = {}
    for row in jobs:
        counted[row.queue][row.state] = Count(row.count, row.estimated)
        if row.waits is not None:
            waits[row.queue] = row.waits
    return tuple(
        QueueStatus(
            queue,
            nodes=len(run.get(queue, ())),
            paused=sum(own.paused for own in run.get(queue, ())),
            limit=sum(own.limit or 0 for own in run.get(queue, ())),
            running=sum(own.running for own in run.get(queue, ())),
            counts=counted[queue],
            oldest_available=waits.get(queue),
        )
        for queue in sorted(run.keys() | counted.keys())
    )
