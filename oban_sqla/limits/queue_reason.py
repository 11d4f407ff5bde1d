"""Say in one sentence why the limits of its queue delay a job."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..config.partition import Partition
from ..runtime.database import Database
from .circumstances import executing_in_queue, executing_of_key, next_start
from .phrases import after, json_object, named
from .queue_limits import GLOBAL_LIMIT, RATE_LIMIT

Living = Sequence[tuple[Any, Mapping[str, Any]]]
"""The producers of the queue that are alive, and the meta of each."""


async def queue_reason(database: Database, job: Any, living: Living) -> str | None:
    """The sentence; `None` if the queue does not delay the job."""
    return (
        await _global_limit(database, job, living)
        or await _rate_limit(database, job, living)
        or _slots(job, living)
    )


async def _global_limit(database: Database, job: Any, living: Living) -> str | None:
    found = [_terms(meta.get(GLOBAL_LIMIT)) for _, meta in living]
    terms = min(found, key=lambda one: one.get("allowed", 0))
    if not isinstance(most := terms.get("allowed"), int) or terms.get("burst") is True:
        return None
    if (partition := _partition(terms)) is None:
        rows = await database.fetch(executing_in_queue(), {"queue_name": job.queue})
        if rows[0].count < most:
            return None
        return f"{rows[0].count} of {most} executing in queue {job.queue}, on all nodes"
    entry = _key(job, "limit")
    params = {"queue_name": job.queue, "key_id": entry.get("id")}
    ids = [row.id for row in await database.fetch(executing_of_key(partition), params)]
    if len(ids) < most:
        return None
    key = f"{entry.get('by')} {entry.get('key')}"
    return f"{len(ids)} of {most} executing for {key} in queue {job.queue} ({named(ids)})"


async def _rate_limit(database: Database, job: Any, living: Living) -> str | None:
    found = [terms for _, meta in living if (terms := _terms(meta.get(RATE_LIMIT)))]
    if not found:
        return None
    terms = found[0]
    rate_id, of = f"queue {job.queue}", f"queue {job.queue}"
    if _partition(terms) is not None:
        entry = _key(job, "rate")
        rate_id, of = str(entry.get("id")), f"{of} for {entry.get('by')} {entry.get('key')}"
    params = {"rate_id": rate_id, "allowed": terms["allowed"], "period": terms["period"]}
    rows = await database.fetch(next_start(), {**params, "burst": terms.get("burst", 0)})
    if rows[0].next_in is None:
        return None
    return f"the next permit of {of} is at {after(job, rows[0].next_in)}"


def _slots(job: Any, living: Living) -> str | None:
    if any(one.run < meta["local_limit"] for one, meta in living if meta.get("paused") is not True):
        return None
    total = sum(one.run for one, _ in living)
    nodes = f"{len(living)} node{'s' if len(living) > 1 else ''}"
    return f"all slots of queue {job.queue} are in use: {total} executing on {nodes}"


def _terms(limit: object) -> dict[str, Any]:
    return {"allowed": limit} if isinstance(limit, int) else json_object(limit)


def _partition(terms: Mapping[str, Any]) -> Partition | None:
    with suppress(TypeError, ValueError):
        return Partition.of(terms.get("partition"))
    return None


def _key(job: Any, kind: str) -> dict[str, Any]:
    """The key that a node wrote into the job, for the limit or the rate of its queue."""
    limits = json_object(json_object(job.meta).get("oban_sqla_limits"))
    return json_object(json_object(limits.get("queue")).get(kind))
