"""Compare the size of the engine's pool with the connections that a node may need."""

import math
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
    # SQLAlchemy has no public name for the overflow of a pool; -1 means no limit.
    overflow: int = getattr(pool, "_max_overflow", 0)
    return None if pool.size() == 0 or overflow < 0 else pool.size() + overflow


def recycle(engine: AsyncEngine) -> float:
    """The seconds after which the pool replaces a connection (`pool_recycle`); `inf` for never."""
    # SQLAlchemy has no public name for it; -1 means never.
    seconds: float = getattr(engine.pool, "_recycle", -1)
    return math.inf if seconds < 0 else seconds


def needed(limits: Mapping[str, int]) -> int:
    """The connections that a node and the sessions of its workers may use at once.

    limits: the limit of each queue. Workers that this process has not imported are not counted.
    """
    queues = {known.queue for known in with_session()}
    return NODE_CONNECTIONS + sum(limit for queue, limit in limits.items() if queue in queues)


def facts(engine: AsyncEngine, limits: Mapping[str, int]) -> dict[str, int]:
    """The facts about the pool that a node stores for the doctor; empty if it has no limit."""
    size = capacity(engine)
    return {} if size is None else {SIZE: size, NEEDED: needed(limits)}
