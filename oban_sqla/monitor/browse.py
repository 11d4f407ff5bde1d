"""Browsing: jobs as they are listed and shown, and selections of them, batch by batch."""

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select

from ..models import JobState
from ..models.job import RECORDED_AS
from ..runtime.database import Database
from . import job_queries as statements
from .job_queries import Filters

# How many jobs one transaction changes.
BATCH = 1000

_TRACEBACK = "Traceback (most recent call last):\n"


@dataclass(frozen=True, slots=True)
class Listed:
    """A job, in a line."""

    id: int
    state: str
    """Also one that this version does not know."""
    queue: str
    worker: str
    args: Any
    tags: list[str] | None
    attempt: int
    max_attempts: int
    inserted_at: datetime
    scheduled_at: datetime
    age: float
    """Seconds since it was enqueued."""
    due_in: float
    """Seconds until `scheduled_at`, less than 0 afterwards."""
    error: str | None
    """The line of the last error that tells most."""


async def browse(database: Database, filters: Filters, *, limit: int) -> list[Listed]:
    """The newest jobs that the filters hold for; `SchemaMissingError` without tables."""
    await database.verify()
    rows = await database.fetch(statements.browse(filters, limit=limit))
    return [Listed(**{**row._mapping, "error": summary(row.error)}) for row in rows]


async def describe(database: Database, *ids: int) -> dict[int, dict[str, Any]]:
    """Everything about jobs, by id and column, and what they `recorded`.

    `SchemaMissingError` without tables.
    """
    await database.verify()
    rows = await database.fetch(statements.describe(ids))
    return {row.id: {**row._mapping, "recorded": _recorded(row.meta)} for row in rows}


def _recorded(meta: Any) -> Any:
    # Others may have written any JSON there, and Erlang terms, which stay in `meta`.
    ours = isinstance(meta, dict) and meta.get("recorded") == RECORDED_AS
    return meta.get("return") if ours else None


def summary(error: str | None) -> str | None:
    """The first line of an error; of a traceback the one that names the exception."""
    if error is None:
        return None
    _, traceback, last = error.rpartition(_TRACEBACK)
    lines = last.strip("\n").splitlines()
    if traceback:
        lines = [line for line in lines if re.match(r"\S", line)] or lines
    return lines[0] if lines else ""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many jobs are selected."""

    counts: Mapping[str, int]
    """By state."""
    last: int
    """The greatest id among them; 0 when there is none."""

    @property
    def total(self) -> int:
        """How many in all."""
        return sum(self.counts.values())


class Selection:
    """The jobs in some of `states` that the filters hold for, the oldest `limit` if one is given.

    What is enqueued after the tally is none of them.
    """

    def __init__(
        self, filters: Filters, states: Iterable[JobState], *, limit: int | None = None
    ) -> None:
        wanted = filters.states or tuple(JobState)
        self._states = tuple(state for state in states if state in wanted)
        self._filters = replace(filters, states=self._states)
        self._limit = limit

    async def tally(self, database: Database) -> Tally:
        """Count them; `SchemaMissingError` without tables."""
        await database.verify()
        if not self._states:
            return Tally({}, 0)
        rows = await database.fetch(statements.tally(self._filters, limit=self._limit))
        return Tally(
            {row.state: row.count for row in rows}, max((row.last for row in rows), default=0)
        )

    async def batches(
        self, database: Database, tally: Tally, *, size: int = BATCH
    ) -> AsyncIterator[tuple[int, Select[Any]]]:
        """How many jobs come next, and the SELECT of them: of those that are still as they were."""
        after, left = 0, tally.total
        while left > 0:
            page = statements.page(
                self._filters, after=after, last=tally.last, limit=min(size, left)
            )
            ids = [row.id for row in await database.fetch(page)]
            if not ids:
                return
            yield len(ids), statements.among(self._filters, ids)
            after, left = ids[-1], left - len(ids)
