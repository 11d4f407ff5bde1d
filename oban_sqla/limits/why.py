"""Say in one sentence why a job waits, or how it ended."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ..durations import duration
from ..runtime.database import Database
from ..runtime.reasons import reason_of
from ..statements.heartbeat import EXPIRY, FOREIGN_EXPIRY
from ..statements.orders import EVERY
from .circumstances import MOST_AHEAD, circumstances, pauses_of, producers_of
from .phrases import after, at, json_object, named
from .queue_reason import queue_reason

SUSPENDED = "it is suspended: nothing starts it before it is made available"


async def why(database: Database, id: int) -> str | None:
    """The sentence about a job; `None` if there is no such job."""
    rows = await database.fetch(circumstances(), {"id": id})
    if not rows:
        return None
    job = rows[0]
    match job.state:
        case "executing":
            node = (job.attempted_by or ["an unknown node"])[0]
            return f"it is executing since {at(job.attempted_at, job.now)} on {node}"
        case "completed" | "cancelled" | "discarded":
            return f"it was {job.state} at {at(job.ended_at, job.now)}"
        case "suspended":
            return await reason_of(database, id) or SUSPENDED
    if job.due_in is None:
        return "its scheduled_at is no time that Python can represent, so it can't run: correct it"
    producers = [one for one in await database.fetch(producers_of(), {"queue": job.queue})]
    living = [(one, meta) for one in producers if _lives(one, meta := json_object(one.meta))]
    if job.due_in > 0 and job.state != "available":
        return _due(job)
    if not living:
        return f"no node runs the queue {job.queue}"
    if all(meta.get("paused") is True for _, meta in living):
        return await _paused(database, job)
    if job.state != "available":
        return "it is due, and the next pass of a stager makes it available"
    return _limited(job) or await queue_reason(database, job, living) or _waiting(job)


def _due(job: Any) -> str:
    when = f"it is due in {duration(job.due_in)}"
    if job.state == "retryable":
        return f"{when}, since attempt {job.attempt} of {job.max_attempts} failed"
    return when


async def _paused(database: Database, job: Any) -> str:
    for row in await database.fetch(pauses_of(), {"queue": job.queue}):
        if row.value.get("action") == "pause":
            where = "" if row.node == EVERY else f" on node {row.node}"
            return f"queue {job.queue} is paused{where} since {at(row.changed_at, job.now)}"
    return f"queue {job.queue} is paused, as its nodes are configured"


def _limited(job: Any) -> str | None:
    """The reason why the job's own limit or rate delays it, if one does."""
    terms = json_object(job.meta).get("oban_sqla_limits")
    terms = terms if isinstance(terms, Mapping) else {}
    if job.held_in is not None and job.held_in > 0:
        until = at(job.now + timedelta(seconds=job.held_in), job.now)
        return f"{job.held_id} is held until {until}, since a job was rate limited"
    executing = sorted(job.executing or ())
    if job.limit_id is not None and not job.shares and len(executing) >= job.most:
        return (
            f"{len(executing)} of {job.most} executing for {_of(job, terms)} ({named(executing)})"
        )
    if job.next_in is not None:
        return f"the next permit of {job.rate_id} is at {after(job, job.next_in)}"
    return None


def _waiting(job: Any) -> str:
    if not job.ahead:
        return "it is next: the next claim of its queue takes it"
    more = "or more " if job.ahead >= MOST_AHEAD else ""
    jobs = f"{job.ahead} {more}job{'s are' if job.ahead > 1 else ' is'}"
    return f"{jobs} before it in queue {job.queue}"


def _of(job: Any, terms: Mapping[str, Any]) -> str:
    limit = json_object(terms.get("limit"))
    return f"{limit['by']} {limit['key']}" if {"by", "key"} <= limit.keys() else str(job.limit_id)


def _lives(producer: Any, meta: Mapping[str, Any]) -> bool:
    expiry = meta.get(EXPIRY, FOREIGN_EXPIRY)
    return bool(producer.silent_for <= (expiry if isinstance(expiry, int | float) else 0))
