"""`Status`: the nodes, leaders and queues, and the numbers of jobs, read from the database."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Executable, Select, Text, cast, func, select
from sqlalchemy.exc import DBAPIError

from ..runtime.database import Database
from ..runtime.presence import Lease, Node, Presence, RunningQueue
from ..statements.counts import EXACT, counts
from ..statements.presence import leaders, producers


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
    """Read the status in one statement, restricted to `instance` if given.

    Jobs belong to no instance, so all jobs are counted. `SchemaMissingError` without tables,
    `StandbyError` on a standby.
    """
    prefix = await database.verify()
    try:
        (row,) = await database.fetch(read_status(prefix=prefix, exact=exact))
    except DBAPIError:
        # A standby refuses the statement, since it has no rows of unlogged tables.
        await database.require_primary()
        raise
    found = Presence.of(prefix, _rows(row.producers), _rows(row.leaders), instance=instance)
    return Status(prefix, found.nodes, found.leaders, _queues(found.run, _rows(row.counts)))


def read_status(*, prefix: str, exact: int, now: datetime | None = None) -> Executable:
    """One row with the `producers`, the `leaders` and the `counts`, each as JSON."""
    parts = {
        "producers": producers(now=now),
        "leaders": leaders(now=now),
        "counts": counts(prefix=prefix, exact=exact, now=now),
    }
    return select(*(_as_json(rows, name) for name, rows in parts.items()))


def _as_json(rows: Select[Any], name: str) -> Any:
    found = rows.subquery(f"{name}_rows")
    objects = select(func.json_agg(func.row_to_json(found.table_valued()))).select_from(found)
    return func.coalesce(cast(objects.scalar_subquery(), Text), "[]").label(name)


def _rows(text: str) -> list[Any]:
    """The rows in a JSON text. Instants are texts there."""
    return [
        SimpleNamespace(**{name: _value(name, value) for name, value in row.items()})
        for row in json.loads(text)
    ]


def _value(name: str, value: Any) -> Any:
    if name.endswith("_at") and value is not None:
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return value


async def totals(database: Database, *, exact: int = EXACT) -> dict[str, Count]:
    """The number of jobs by state; `SchemaMissingError` without tables."""
    prefix = await database.verify()
    found: dict[str, Count] = {}
    for row in await database.fetch(counts(prefix=prefix, exact=exact)):
        before = found.get(row.state, Count(0, False))
        found[row.state] = Count(before.count + row.count, before.estimated or row.estimated)
    return found


def _queues(
    run: Mapping[str, Sequence[RunningQueue]], jobs: Iterable[Any]
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
