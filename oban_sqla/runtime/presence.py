"""Presence: the nodes that run queues, and who leads them, as the database tells it."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..config.oban_settings import LONGEST_EXPIRY
from ..statements.heartbeat import DELAYED, EXPIRY, FOREIGN_EXPIRY, LEFT_BEHIND
from ..statements.presence import leaders, producers
from .database import Database
from .pool import NEEDED, SIZE


@dataclass(frozen=True, slots=True)
class RunningQueue:
    """A queue that a node runs."""

    queue: str
    limit: int | None
    """How many of its jobs the node runs at once; `None` when its row does not tell."""
    paused: bool
    running: int
    alive: bool
    """Whether its last sign of life has not expired; its jobs are orphans if it has."""
    silent_for: float
    """Seconds since then."""
    started_at: datetime
    uuid: str
    delayed_outcomes: tuple[int, ...] = ()
    """Ids of jobs that have ended there, and whose outcome can't be written."""
    left_behind: tuple[int, ...] = ()
    """Ids of jobs that have ended there, while their thread or task goes on."""
    foreign: bool = False
    """Whether a node of another Oban runs it: its jobs are orphans by their age alone."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node that has rows in `oban_producers`."""

    instance: str
    node: str
    queues: tuple[RunningQueue, ...]
    pool_size: int | None = None
    """The most connections that its engine's pool opens; `None`: no limit, or not told."""
    pool_needed: int | None = None
    """The connections that the node and its jobs with a session may use at once."""

    @property
    def alive(self) -> bool:
        """Whether it gives signs of life."""
        return any(queue.alive for queue in self.queues)

    @property
    def silent_for(self) -> float:
        """Seconds since the last one."""
        return min(queue.silent_for for queue in self.queues)


@dataclass(frozen=True, slots=True)
class Lease:
    """Who leads the nodes of an instance."""

    instance: str
    node: str
    elected_at: datetime
    expires_in: float
    """Seconds; less than 0 when it has expired, and nobody leads."""


@dataclass(frozen=True, slots=True)
class Presence:
    """The nodes and the leaders in the schema `schema`."""

    schema: str
    nodes: tuple[Node, ...]
    leaders: tuple[Lease, ...]

    @property
    def run(self) -> dict[str, list[RunningQueue]]:
        """The queues that living nodes run, by name."""
        run: dict[str, list[RunningQueue]] = defaultdict(list)
        for node in self.nodes:
            for queue in node.queues:
                if queue.alive:
                    run[queue.queue].append(queue)
        return dict(run)


async def presence(database: Database, *, instance: str | None = None) -> Presence:
    """Read the presence, of one `instance` alone if it is named.

    `SchemaMissingError` without tables, `StandbyError` on a standby.
    """
    prefix = await database.verify()
    await database.require_primary()
    nodes = _nodes(_of(instance, await database.fetch(producers())))
    leases = [
        Lease(row.name, _node_of(row.node), *row[2:])
        for row in _of(instance, await database.fetch(leaders()))
    ]
    return Presence(prefix, nodes, tuple(leases))


def _of(instance: str | None, rows: Sequence[Any]) -> list[Any]:
    return [row for row in rows if instance in (None, row.name)]


def _nodes(rows: Sequence[Any]) -> tuple[Node, ...]:
    by_node: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in rows:
        by_node[row.name, row.node].append(row)
    return tuple(
        Node(name, node, tuple(map(_running_queue, own)), *_pool(own))
        for (name, node), own in by_node.items()
    )


def _pool(rows: Sequence[Any]) -> tuple[int | None, int | None]:
    """The size of a node's pool and the connections that it needs, as its rows tell."""
    told = [_meta(row.meta) for row in rows]
    size, needed = (
        max((one[key] for one in told if isinstance(one.get(key), int)), default=None)
        for key in (SIZE, NEEDED)
    )
    return size, needed


def _running_queue(row: Any) -> RunningQueue:
    meta = _meta(row.meta)
    limit = meta.get("local_limit")
    return RunningQueue(
        row.queue,
        limit if isinstance(limit, int) else None,
        paused=meta.get("paused") is True,
        running=row.running,
        alive=row.silent_for < _expiry(meta),
        silent_for=row.silent_for,
        started_at=row.started_at,
        uuid=row.uuid,
        delayed_outcomes=_ids(meta.get(DELAYED)),
        left_behind=_ids(meta.get(LEFT_BEHIND)),
        foreign=EXPIRY not in meta,
    )


def _meta(text: str) -> dict[str, Any]:
    """A producer's meta, which others may have written; no object is no facts."""
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _ids(value: object) -> tuple[int, ...]:
    return tuple(id for id in value if isinstance(id, int)) if isinstance(value, list) else ()


def _expiry(meta: Mapping[str, Any]) -> float:
    said = meta.get(EXPIRY)
    return said if isinstance(said, int | float) and 0 <= said <= LONGEST_EXPIRY else FOREIGN_EXPIRY


def _node_of(holder: str) -> str:
    """The name of the node that holds a lease; ours add what tells them from their namesakes."""
    return re.sub(r"/[0-9a-f]{12}$", "", holder)
