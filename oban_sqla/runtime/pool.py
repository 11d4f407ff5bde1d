"""The engine's pool: how many connections it opens, and how many a node may use at once."""

from collections.abc import Mapping

from sqlalchemy import QueuePool
from sqlalchemy.ext.asyncio import AsyncEngine

from ..config import NODE_CONNECTIONS
from ..workers.registry import with_session

SIZE = "pool_size"
NEEDED = "pool_needed"


def capacity(engine: AsyncEngine) -> int | None:
    """The most connections that an engine opens; `None` for a pool without a limit."""
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return None
    # SQLAlchemy offers the size of a pool, and not its overflow; -1 is no limit.
    overflow: int = getattr(pool, "_max_overflow", 0)
    return None if pool.size() == 0 or overflow < 0 else pool.size() + overflow


def needed(limits: Mapping[str, int]) -> int:
    """The connections of the pool that a node may use at once: its own, and its workers' sessions.

    limits: by queue. Workers that this process has not imported are not counted.
    """
    queues = {known.queue for known in with_session()}
    return NODE_CONNECTIONS + sum(limit for queue, limit in limits.items() if queue in queues)


def facts(engine: AsyncEngine, limits: Mapping[str, int]) -> dict[str, int]:
    """What a node tells the doctor of its pool; nothing if the pool has no limit."""
    size = capacity(engine)
    return {} if size is None else {SIZE: size, NEEDED: needed(limits)}
