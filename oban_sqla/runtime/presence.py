"""`Presence`: the nodes that run queues, and their leaders, as stored in the database."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..config.oban_settings import LONGEST_EXPIRY
from ..statements.heartbeat import DELAYED, EXPIRY, FOREIGN_EXPIRY, LEFT_BEHIND, REFUSED
from ..statements.presence import leaders, producers
from .database import Database
from .pool import NEEDED, SIZE


@dataclass(frozen=True, slots=True)
class RunningQueue:
    """A queue that a node runs."""

    queue: str
    limit: int | None
    """The most jobs that the node runs at once; `None` if its row does not say it."""
    paused: bool
    running: int
    alive: bool
    """Whether the last heartbeat has not expired. If it has, the jobs are orphans."""
    silent_for: float
    """Seconds since the last heartbeat."""
    started_at: datetime
    uuid: str
    delayed_outcomes: tuple[int, ...] = ()
    """Ids of ended jobs whose outcomes can't be written."""
    refused_jobs: tuple[int, ...] = ()
    """Ids of available jobs that the database refuses to claim."""
    left_behind: tuple[int, ...] = ()
    """Ids of ended jobs whose threads or tasks still run."""
    foreign: bool = False
    """Whether a node of another Oban runs the queue. Its jobs become orphans only by their age."""
    global_limit: Mapping[str, Any] | None = None
    """The limit of the queue over all nodes, as the row has it: `{"allowed": 10}`."""
    rate_limit: Mapping[str, Any] | None = None
    """The rate of the queue, as the row has it: `{"allowed": 60, "period": 60}`."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node that has rows in `oban_producers`."""

    instance: str
    node: str
    queues: tuple[RunningQueue, ...]
    pool_size: int | None = None
    """The most connections that its engine's pool opens; `None` for no limit, or if unknown."""
    pool_needed: int | None = None
    """The connections that the node and its jobs with a session may use at once."""

    @property
    def alive(self) -> bool:
        """Whether the node has a heartbeat that has not expired."""
        return any(queue.alive for queue in self.queues)

    @property
    def silent_for(self) -> float:
        """Seconds since the last heartbeat."""
        return min(queue.silent_for for queue in self.queues)


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease of the leader of an instance."""

    instance: str
    node: str
    elected_at: datetime
    expires_in: float
    """Seconds; less than 0 if the lease has expired, so that there is no leader."""


@dataclass(frozen=True, slots=True)
class Presence:
    """The nodes and the leaders in the schema `schema`."""

    schema: str
    nodes: tuple[Node, ...]
    leaders: tuple[Lease, ...]

    @classmethod
    def of(
        cls,
        schema: str,
        producers: Iterable[Any],
        leaders: Iterable[Any],
        *,
        instance: str | None = None,
    ) -> "Presence":
        """The presence in the rows of producers and leaders, restricted to `instance` if given."""
        leases = [
            Lease(row.name, _node_of(row.node), row.elected_at, row.expires_in)
            for row in _of(instance, leaders)
        ]
        return cls(schema, _nodes(_of(instance, producers)), tuple(leases))

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
    """Read the presence, restricted to `instance` if given.

    `SchemaMissingError` without tables, `StandbyError` on a standby.
    """
    prefix = await database.verify()
    await database.require_primary()
    rows = await database.fetch(producers()), await database.fetch(leaders())
    return Presence.of(prefix, *rows, instance=instance)


def _of(instance: str | None, rows: Iterable[Any]) -> list[Any]:
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
    """The size of a node's pool and the connections that the node needs, from its rows."""
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
        refused_jobs=_ids(meta.get(REFUSED)),
        left_behind=_ids(meta.get(LEFT_BEHIND)),
        foreign=EXPIRY not in meta,
        global_limit=_object(meta.get("global_limit")),
        rate_limit=_object(meta.get("rate_limit")),
    )


def _meta(text: str) -> dict[str, Any]:
    """The meta of a producer. Another Oban may have written any JSON, which counts as empty."""
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _object(value: object) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) else None


def _ids(value: object) -> tuple[int, ...]:
    return tuple(id for id in value if isinstance(id, int)) if isinstance(value, list) else ()


def _expiry(meta: Mapping[str, Any]) -> float:
    said = meta.get(EXPIRY)
    return said if isinstance(said, int | float) and 0 <= said <= LONGEST_EXPIRY else FOREIGN_EXPIRY


def _node_of(holder: str) -> str:
    """The name of the node that holds a lease. Our holders have a random suffix."""
    return re.sub(r"/[0-9a-f]{12}$", "", holder)
