"""List and show jobs, and select jobs for changes in batches."""

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select

from ..models import JobState
from ..models.recorded import RECORDED_AS
from ..runtime.database import Database
from ..statements.claimed import Loads
from . import job_queries
from .excerpts import cut_args
from .job_queries import Filters
from .readable import read

# The most jobs that one transaction changes.
BATCH = 1000

_TRACEBACK = "Traceback (most recent call last):\n"
_FRAME = re.compile(r'[ \t]+File "')
_NAMED = re.compile(r"[A-Za-z_][\w.]*(:|$)")


@dataclass(frozen=True, slots=True)
class Listed:
    """A job in a list."""

    id: int
    state: str
    """As text, since this version may not know the state."""
    queue: str
    worker: str
    args: Any
    tags: list[str] | None
    attempt: int
    max_attempts: int
    inserted_at: datetime | str
    """As text, if Python can't represent it; then `age` is `None`."""
    scheduled_at: datetime | str
    """As text, if Python can't represent it; then `due_in` is `None`."""
    age: float | None
    """Seconds since the job was enqueued."""
    due_in: float | None
    """Seconds until `scheduled_at`; negative afterwards."""
    error: str | None
    """The most important line of the last error."""


async def browse(
    database: Database, filters: Filters, *, limit: int, cut: bool = False
) -> list[Listed]:
    """The newest jobs that match the filters; `SchemaMissingError` without tables.

    cut: whether long arguments are an `Excerpt`, and only the end of an error is read.
    """
    await database.verify()
    rows = await database.fetch(job_queries.newest(filters, limit=limit, cut=cut))
    return [_listed(row, database.loads, cut) for row in rows]


def _listed(row: Any, loads: Loads, cut: bool) -> Listed:
    values = {**read(row, loads), "error": summary(row.error)}
    if cut and isinstance(row.args, str) and (excerpt := cut_args(row.args)) is not None:
        values["args"] = excerpt
    return Listed(**values)


async def describe(database: Database, *ids: int) -> dict[int, dict[str, Any]]:
    """All columns of jobs and their `recorded` values, by id.

    What Python can't read is a text. `SchemaMissingError` without tables.
    """
    await database.verify()
    rows = await database.fetch(job_queries.whole(ids))
    jobs = [read(row, database.loads) for row in rows]
    return {job["id"]: {**job, "recorded": _recorded(job["meta"])} for job in jobs}


def _recorded(meta: Any) -> Any:
    # Other programs may have written any JSON there. Erlang terms are only in `meta`.
    ours = isinstance(meta, dict) and meta.get("recorded") == RECORDED_AS
    return meta.get("return") if ours else None


def summary(error: str | None) -> str | None:
    """The first line of an error. For a traceback, the line that names the exception.

    The error may be only the end of a text.
    """
    if error is None:
        return None
    _, traceback, last = error.rpartition(_TRACEBACK)
    lines = last.strip("\n").splitlines()
    if traceback:
        lines = [line for line in lines if re.match(r"\S", line)] or lines
    elif any(map(_FRAME.match, lines)):
        # The beginning of the traceback is cut off: its last unindented line is the exception.
        lines = [line for line in lines if _NAMED.match(line)][-1:] or lines
    return lines[0] if lines else ""


@dataclass(frozen=True, slots=True)
class Tally:
    """The number of selected jobs."""

    counts: Mapping[str, int]
    """The number of jobs by state."""
    last: int
    """The greatest id of the jobs; 0 if there are none."""

    @property
    def total(self) -> int:
        """The number of all selected jobs."""
        return sum(self.counts.values())


class Selection:
    """The jobs in one of `states` that match the filters; with `limit`, only the oldest ones.

    Jobs that are enqueued after the tally are not selected.
    """

    def __init__(
        self, filters: Filters, states: Iterable[JobState], *, limit: int | None = None
    ) -> None:
        wanted = filters.states or tuple(JobState)
        self._states = tuple(state for state in states if state in wanted)
        self._filters = replace(filters, states=self._states)
        self._limit = limit

    async def tally(self, database: Database) -> Tally:
        """Count the selected jobs; `SchemaMissingError` without tables."""
        await database.verify()
        if not self._states:
            return Tally({}, 0)
        rows = await database.fetch(job_queries.tally(self._filters, limit=self._limit))
        return Tally(
            {row.state: row.count for row in rows}, max((row.last for row in rows), default=0)
        )

    async def batches(
        self, database: Database, tally: Tally, *, size: int = BATCH
    ) -> AsyncIterator[tuple[int, Select[Any]]]:
        """Yield each batch: the number of its jobs, and a SELECT of those that still match."""
        after, left = 0, tally.total
        while left > 0:
            page = job_queries.page(
                self._filters, after=after, last=tally.last, limit=min(size, left)
            )
            ids = [row.id for row in await database.fetch(page)]
            if not ids:
                return
            yield len(ids), job_queries.among(self._filters, ids)
            after, left = ids[-1], left - len(ids)
