"""`Status`: the nodes, leaders and queues, and the numbers of jobs, read from the database."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.database import Database
from ..runtime.presence import Lease, Node, RunningQueue, presence
from ..statements.counts import EXACT, counts


@dataclass(frozen=True, slots=True)
class Count:
    """The number of jobs of a queue in a state."""

    count: int
    estimated: bool
    """Whether the number is an estimate of the planner, since there are more than `EXACT`."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue that a living node runs, or that has jobs."""

    queue: str
    nodes: int
    """The number of living nodes that run the queue."""
    paused: int
    """The number of these nodes on which the queue is paused."""
    limit: int
    """The most jobs that these nodes run at once."""
    running: int
    """The number of jobs that they run now."""
    counts: Mapping[str, Count]
    """The numbers of jobs by state, including states that this version does not know."""
    oldest_available: float | None
    """For how many seconds the oldest available job has been due."""


@dataclass(frozen=True, slots=True)
class Status:
    """The nodes, leaders and queues in the schema `schema`."""

    schema: str
    nodes: tuple[Node, ...]
    leaders: tuple[Lease, ...]
    queues: tuple[QueueStatus, ...]


async def status(database: Database, *, instance: str | None = None, exact: int = EXACT) -> Status:
    """Read the status, restricted to `instance` if given.

    Jobs belong to no instance, so all jobs are counted. `SchemaMissingError` without tables,
    `StandbyError` on a standby.
    """
    found = await presence(database, instance=instance)
    jobs = await database.fetch(counts(prefix=found.schema, exact=exact))
    return Status(found.schema, found.nodes, found.leaders, _queues(found.run, jobs))


async def totals(database: Database, *, exact: int = EXACT) -> dict[str, Count]:
    """The number of jobs by state; `SchemaMissingError` without tables."""
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
