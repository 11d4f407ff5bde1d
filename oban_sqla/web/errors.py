"""The page of errors: failing and failed jobs, grouped by exception and its place."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    Executable,
    String,
    Text,
    any_,
    cast,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from starlette.requests import Request
from starlette.responses import Response

from ..models import Job, JobState
from ..monitor.browse import summary
from ..monitor.excerpts import ERROR_END
from ..statements.claimed import fetchable
from ..statements.states import constant
from .frames import last_frame
from .page import Page
from .reads import Reads

FAILED = (JobState.RETRYABLE, JobState.DISCARDED)
MOST = 1000
"""The most jobs of each state that are read, the newest first."""
SHOWN = 100
_CLASS = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_VALUES = re.compile(r"0x[0-9a-f]+|\d+|'[^']*'|\"[^\"]*\"")


@dataclass(slots=True)
class Group:
    """Jobs that failed in the same way."""

    exception: str
    frame: str | None
    key: str
    example: str = ""
    last_id: int = 0
    ids: list[int] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    first_at: datetime | None = None
    last_at: datetime | None = None

    def add(self, row: Any, text: str) -> None:
        """Count a job."""
        self.ids.append(row.id)
        self.counts[row.state] = self.counts.get(row.state, 0) + 1
        self.workers[row.worker] = self.workers.get(row.worker, 0) + 1
        if row.id > self.last_id:
            self.last_id, self.example = row.id, text
        if row.at is not None:
            self.first_at = min(self.first_at or row.at, row.at)
            self.last_at = max(self.last_at or row.at, row.at)


async def errors(request: Request) -> Response:
    page = Page(request)
    groups = await groups_of(page)
    return await page.render(
        "errors.html",
        active="errors",
        title="Errors",
        groups=groups[:SHOWN],
        more=max(0, len(groups) - SHOWN),
        most=MOST,
        cut=any(_is_cut(groups, state) for state in FAILED),
    )


async def groups_of(page: Page) -> list[Group]:
    """The groups, the largest first. Without the right `args`, they only show the exception."""
    rows = await page.shared("failed", partial(_read, page.board.reads))
    return sorted(_grouped(page, rows), key=lambda group: (-len(group.ids), group.key))


async def _read(reads: Reads) -> Sequence[Any]:
    await reads.verify()
    return await reads.fetch(failed())


def failed() -> Executable:
    """The newest jobs that fail or have failed, with the end of their last `error`."""

    def of(state: JobState, newest: Any) -> Any:
        # The ids first: the texts of all failed jobs are not read to sort them.
        ids = select(Job.id).where(Job.state == constant(state)).order_by(newest.desc()).limit(MOST)
        last = Job.errors[-1]
        text = func.coalesce(last["error"].astext, cast(last, Text))
        return select(
            Job.id,
            literal(state.value, String).label("state"),
            Job.worker,
            func.coalesce(
                *(fetchable(name, getattr(Job, name)) for name in ("attempted_at", "inserted_at"))
            ).label("at"),
            func.right(text, ERROR_END).label("error"),
        ).where(Job.id == any_(func.array(ids.scalar_subquery(), type_=ARRAY(BigInteger))))

    return union_all(of(JobState.RETRYABLE, Job.id), of(JobState.DISCARDED, Job.discarded_at))


def _grouped(page: Page, rows: Iterable[Any]) -> Iterable[Group]:
    groups: dict[str, Group] = {}
    for row in rows:
        text = _seen(page, row)
        exception, frame = summary(text) or "", last_frame(text)
        if not page.may("args"):
            exception, frame = _class_of(exception), None
        key = hashlib.sha256(f"{_VALUES.sub('?', exception)}\0{frame}".encode()).hexdigest()[:16]
        group = groups.setdefault(key, Group(exception, frame, key))
        group.add(row, exception)
    return groups.values()


def _seen(page: Page, row: Any) -> str:
    """The text of an error, masked if there is a mask."""
    if row.error is None:
        return "(no error is kept)"
    if not page.may("args") or page.board.mask is None:
        return str(row.error)
    return page.shown_error(row.error, row.worker)


def _class_of(exception: str) -> str:
    """Only the class of an exception, since the rest of a text may contain any data."""
    name = exception.partition(":")[0]
    return name if _CLASS.fullmatch(name) else "(hidden)"


def _is_cut(groups: Iterable[Group], state: JobState) -> bool:
    return sum(_of(group.counts, state) for group in groups) >= MOST


def _of(counts: Mapping[str, int], state: JobState) -> int:
    return counts.get(state.value, 0)
