"""The page of one job: its columns, its attempts, and why it waits."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ..limits.why import why
from ..models.unique import COUNTED_BY
from ..monitor.browse import describe, summary
from ..monitor.readable import UNREADABLE
from ..statements.claimed import INSTANTS, JSON_COLUMNS
from .frames import Block, blocks
from .job_verbs import JOB_VERBS
from .limited import may_see
from .page import HIDDEN, MASKED, Page
from .reads import Reads
from .rows import Row, rows_of
from .show import between, end, instant
from .workflows import waited_for

WAITING = ("available", "scheduled", "retryable", "suspended")
"""The states in which a job may be edited."""
# Errors on a page, the last ones, and characters of the text of the last one and of the others.
MOST_ERRORS = 10
LONGEST_ERROR, LONGEST_OTHER = 4000, 1000


@dataclass(frozen=True, slots=True)
class Read:
    """What the page reads of a job."""

    job: dict[str, Any]
    waited_for: Sequence[Any]
    """The steps of its workflow for which it waits."""
    why: str | None
    """Why it waits, with all keys of its limits."""


@dataclass(frozen=True, slots=True)
class Step:
    """An instant in the life of a job."""

    at: datetime
    text: str
    state: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt."""

    attempt: str
    at: datetime | None
    summary: str
    blocks: list[Block]
    left_out: int
    """The number of characters at the beginning of the text that are not shown."""


async def job(request: Request) -> Response:
    page = Page(request)
    id = page.id
    read = await page.shared("job", partial(_read, page.board.reads, id))
    if read is None:
        raise HTTPException(404, f"There is no job {id}. It was deleted, or its retention is over.")
    found, worker = read.job, read.job["worker"]
    if page.board.mask is not None and isinstance(found["meta"], dict):
        # Keys of limits are values of arguments, and `return` is the recorded value. The mask may
        # cover both.
        others = (*COUNTED_BY, "return")
        meta = {name: value for name, value in found["meta"].items() if name not in others}
        shown = {**found, "meta": meta}
    else:
        shown = found
    fields = {
        name: page.shown(name, shown[name], worker)
        for name in ("args", "meta", "errors", "recorded")
    }
    flow = found["meta"].get("workflow_id") if isinstance(found["meta"], dict) else None
    unreadable = [*_unreadable(found)]
    failures = [*_failures(fields["errors"])]
    return await page.render(
        "job.html",
        active="jobs",
        title=f"Job {id}",
        job={**found, **fields},
        hidden=(HIDDEN, MASKED, UNREADABLE),
        unreadable=unreadable,
        waited=between(found["scheduled_at"], found["attempted_at"]),
        took=between(found["attempted_at"], found["completed_at"]),
        failures=failures[: -MOST_ERRORS - 1 : -1],
        failures_count=len(failures),
        steps=sorted(_steps(found, failures), key=lambda step: step.at),
        reason=_reason(page, read),
        flow=page.quoted(str(flow)) if flow is not None else None,
        step=found["meta"].get("name") if flow is not None else None,
        waited_for=read.waited_for,
        rows=await _rows(page, fields["args"]),
        can={name: found["state"] in verb.states for name, verb in JOB_VERBS.items()},
        editable=found["state"] in WAITING and not unreadable,
        scheduled_input=_input(found["scheduled_at"]),
        edited=page.asked("done") == "edit",
    )


async def _read(reads: Reads, id: int) -> Read | None:
    job = (await describe(reads, id)).get(id)
    if job is None:
        return None
    in_flow = isinstance(job["meta"], dict) and job["meta"].get("workflow_id") is not None
    steps = await reads.fetch(waited_for(job)) if in_flow else []
    try:
        said = await why(reads, id) if job["state"] in WAITING else None
    except DataError:
        # Another program may have written invalid terms of limits.
        said = "the limits in its meta can't be read"
    return Read(job, steps, said)


def _reason(page: Page, read: Read) -> str | None:
    """Why a job waits, without the keys that the viewer may not see; `None` if it does not."""
    said = read.why
    if said is None:
        return None
    for by, key in _keys(read.job["meta"]):
        if not may_see(page, by, key, read.job["worker"]):
            said = said.replace(key, "…")
    return f"{said[:1].upper()}{said[1:]}."


def _keys(meta: Any) -> Iterator[tuple[str, str]]:
    """The arguments by which the limit and rate count a job, and their values."""
    limits = meta.get("oban_sqla_limits") if isinstance(meta, dict) else None
    limits = limits if isinstance(limits, dict) else {}
    queue = limits.get("queue")
    for terms in (*limits.values(), *(queue.values() if isinstance(queue, dict) else ())):
        if isinstance(terms, dict) and terms.get("key") is not None:
            yield str(terms.get("by") or "key"), str(terms["key"])


def _failures(errors: Any) -> Iterator[Failure]:
    """The errors of a job. Any program may have written them, in any form."""
    found = errors if isinstance(errors, list) else []
    for number, error in enumerate(found, 1):
        told = error if isinstance(error, dict) else {}
        text = told.get("error")
        if not isinstance(text, str):
            text = json.dumps(error, ensure_ascii=False, default=str)
        shown = end(text, LONGEST_ERROR if number == len(found) else LONGEST_OTHER)
        yield Failure(
            str(told.get("attempt", "?")),
            _instant(told.get("at")),
            summary(text) or "",
            blocks(shown),
            len(text) - len(shown),
        )


def _steps(job: Mapping[str, Any], failures: list[Failure]) -> Iterator[Step]:
    """The steps at instants that Python can represent."""
    inserted, scheduled = job["inserted_at"], job["scheduled_at"]
    if isinstance(inserted, datetime):
        yield Step(inserted, "enqueued", "available")
    for failure in failures:
        if failure.at is not None:
            at = failure.at.replace(tzinfo=UTC)
            yield Step(at, f"attempt {failure.attempt} failed", "discarded", failure.summary)
    if (between(inserted, scheduled) or 0) > 0:
        yield Step(scheduled, "due", "scheduled")
    if isinstance(job["attempted_at"], datetime):
        by = job["attempted_by"]
        node = str(by[0]) if isinstance(by, list) and by else None
        where = f"on {node}" if node else None
        yield Step(job["attempted_at"], f"attempt {job['attempt']} began", "executing", where)
    for state in ("completed", "cancelled", "discarded"):
        if isinstance(job[f"{state}_at"], datetime) and job["state"] == state:
            yield Step(job[f"{state}_at"], state, state)


def _unreadable(job: Mapping[str, Any]) -> Iterator[str]:
    """The columns that keep the job from running, and the instants as the table has them."""
    for name in INSTANTS:
        if isinstance(job[name], str):
            yield f"{name} ({job[name]})"
    for name in JSON_COLUMNS:
        if job[name] == UNREADABLE:
            yield name


async def _rows(page: Page, args: Any) -> list[Row]:
    """The rows to which the shown arguments refer, shared by viewers with the right `args`."""
    if not page.may("args"):
        return []
    return await page.shared("rows", partial(rows_of, args, page.board.row, page.board.timeout))


def _input(value: Any) -> str:
    return instant(value)[:19] if isinstance(value, datetime) else ""


def _instant(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
