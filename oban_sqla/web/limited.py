"""The keys with the most waiting jobs."""

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Executable, Text, cast, func, select
from sqlalchemy.dialects.postgresql import JSONB

from ..limits.terms import is_partitioned, limits_of
from ..models import Job, JobState
from ..statements.states import constant
from .page import MASKED, Page
from .search import nested

# The most waiting jobs that are counted by key, and the most keys that a queue shows.
COUNTED, SHOWN = 10_000, 8


@dataclass(frozen=True, slots=True)
class Key:
    """A key by which limited jobs of a queue are counted."""

    name: str
    waiting: int
    executing: int
    allowed: int | None


async def keys_of_queues(page: Page) -> dict[str, list[Key]]:
    """The keys with the most waiting jobs, by queue; empty without the right `args`."""
    if not page.may("args"):
        return {}
    rows = await page.shared("keys", partial(page.board.reads.fetch, counted_keys()))
    counts = {(row.state, row.queue, row.id): row.count for row in rows}
    keys = defaultdict[str, list[Key]](list)
    for row in {(row.queue, row.id): row for row in rows}.values():
        allowed = row.allowed if row.allowed and row.allowed.isdecimal() else None
        key = Key(
            _named(page, row),
            counts.get((JobState.AVAILABLE, row.queue, row.id), 0),
            counts.get((JobState.EXECUTING, row.queue, row.id), 0),
            None if allowed is None else int(allowed),
        )
        keys[row.queue].append(key)
    return {queue: sorted(found, key=_most_first)[:SHOWN] for queue, found in keys.items()}


def counted_keys() -> Executable:
    """The numbers of waiting and executing jobs by key, queue and state."""
    limits = limits_of(Job)
    # The limit of its worker, or that of its queue for each key.
    limit = func.coalesce(limits["limit"], limits["queue"]["limit"], type_=JSONB)
    first = [
        select(
            Job.queue,
            cast(Job.state, Text).label("state"),
            *(limit[name].astext.label(name) for name in ("id", "by", "key", "allowed")),
            Job.worker,
        )
        .where(Job.state == constant(state), is_partitioned(Job))
        .limit(COUNTED)
        for state in (JobState.AVAILABLE, JobState.EXECUTING)
    ]
    waiting, executing = (select(one.subquery()) for one in first)
    jobs = waiting.union_all(executing).subquery("jobs").c
    columns = (jobs.queue, jobs.state, jobs.id, jobs.by, jobs.key, jobs.allowed)
    return (
        select(*columns, func.min(jobs.worker).label("worker"), func.count().label("count"))
        .where(jobs.id.is_not(None))
        .group_by(*columns)
    )


def _most_first(key: Key) -> tuple[int, int, str]:
    return -key.waiting, -key.executing, key.name


def _named(page: Page, row: Any) -> str:
    """A key as the pages show it. A mask may cover it, since it is the value of an argument."""
    if row.by is None or row.key is None:
        return str(row.id) if page.board.mask is None else MASKED
    return f"{row.by} {row.key}" if may_see(page, row.by, row.key, row.worker) else MASKED


def may_see(page: Page, by: str, key: str, worker: str) -> bool:
    """Whether the viewer may see the key of a limit, which is the JSON of an argument."""
    if page.board.mask is not None and "," in by:
        # The key is made of several values, and the mask may cover any of them.
        return False
    try:
        value = json.loads(key)
    except (ValueError, RecursionError):
        value = key  # a long key is cut
    asked = nested(tuple(by.split(".")), value)
    return bool(page.shown("args", asked, worker) == asked)
