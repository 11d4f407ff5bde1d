"""The pages of workflows: a list with their progress, and the graph of one workflow."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Executable, Text, case, cast, func, null, select, tuple_
from sqlalchemy.orm import aliased
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ..models import Job, JobState
from ..models.types import UTCDateTime
from ..statements.claimed import fetchable, if_representable
from ..workflows.graph import LAST
from ..workflows.step import Step
from ..workflows.workflow import Workflow
from .layout import HEIGHT, box_of, lay_out
from .page import Page
from .reads import Reads
from .show import between
from .workflow_verbs import WORKFLOW_VERBS

ROWS = 50
# The most steps that are drawn. The steps of a larger workflow are listed.
MOST_DRAWN = 300
MOST_LISTED = 500
STATES = ("executing", "completed", "discarded", "cancelled")
COUNTS = (
    *("completed", "executing", "available", "scheduled", "retryable", "suspended"),
    *("discarded", "cancelled"),
)
"""The states in the order of the bars of progress."""
ENDED = ("completed", "discarded", "cancelled")
_ENDED_AT = tuple(f"{state}_at" for state in ENDED)


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar of progress, in hundredths."""

    state: str
    x: float
    width: float


async def workflows(request: Request) -> Response:
    page = Page(request)
    state = page.asked("state") if page.asked("state") in STATES else ""
    name, before = _clean(page.asked("q")), _clean(page.asked("before"))
    newest_first = newest(state, name, before)
    rows = await page.shared("workflows", partial(_read, page.board.reads, newest_first))
    shown = rows[:ROWS]
    return await page.render(
        "workflows.html",
        active="workflows",
        title="Workflows",
        rows=shown,
        bars={row.id: bar(ended_steps(row), total(row)) for row in shown},
        totals={row.id: total(row) for row in shown},
        chosen=state,
        choices=STATES,
        name=name,
        before=shown[-1].id if len(rows) > ROWS else None,
        is_first=not page.asked("before"),
        verbs=WORKFLOW_VERBS,
    )


async def workflow(request: Request) -> Response:
    page = Page(request)
    id = request.path_params["id"]
    if "\0" in id:
        raise HTTPException(404, "There is no such workflow.")
    read = partial(_read, page.board.reads)
    found = await page.shared("workflow", partial(read, one(id)))
    if not found:
        raise HTTPException(404, "There is no such workflow. It was deleted with its jobs.")
    steps = await page.shared("steps", partial(read, steps_of(id, MOST_LISTED + 1)))
    counts = Counter(step.state for step in steps)
    if len(steps) > MOST_LISTED:
        counts = Counter(ended_steps(found[0]))
    drawn = steps if len(steps) <= MOST_DRAWN else []
    box = box_of(step.name for step in drawn)
    graph = lay_out([step.job_id for step in drawn], _dependents(drawn), box)
    return await page.render(
        "workflow.html",
        active="workflows",
        title=found[0].name or "Workflow",
        flow=found[0],
        bar=bar(counts, sum(counts.values())),
        counts=counts,
        began=min((one.attempted_at for one in steps if one.attempted_at), default=None),
        steps=steps[:MOST_LISTED],
        more=len(steps) > MOST_LISTED,
        graph=graph if drawn else None,
        by_id={step.job_id: step for step in steps},
        took={step.job_id: _took(step) for step in steps},
        size=(box, HEIGHT),
        meta=page.shown("meta", found[0].meta, "") if found[0].meta else None,
        verbs=WORKFLOW_VERBS,
    )


async def _read(reads: Reads, statement: Executable) -> Sequence[Any]:
    await reads.verify()
    return await reads.fetch(statement)


def _took(step: Any) -> float | None:
    """The seconds of the last attempt of an ended step; `None` if they are not known."""
    seconds = between(step.attempted_at, step.ended_at) if step.state in ENDED else None
    return seconds if seconds is not None and seconds >= 0 else None


def _dependents(steps: Sequence[Any]) -> dict[int, list[int]]:
    """The ids of the steps that wait for each step.

    A step of `add_last` waits for all other steps of its workflow.
    """
    found = {step.job_id: list(step.dependents) for step in steps}
    lasts = [step for step in steps if step.kind == LAST]
    for step in steps:
        if step.kind != LAST and not found[step.job_id]:
            found[step.job_id] += [
                last.job_id for last in lasts if last.workflow_id == step.workflow_id
            ]
    return found


def newest(state: str, name: str, before: str) -> Executable:
    """The newest workflows without a parent; a page begins after the workflow `before`."""
    found = select(*columns()).where(*matching(state, name))
    if before:
        last = aliased(Workflow)
        position = select(last.inserted_at).where(last.id == before).scalar_subquery()
        found = found.where(tuple_(Workflow.inserted_at, Workflow.id) < tuple_(position, before))
    return found.order_by(Workflow.inserted_at.desc(), Workflow.id.desc()).limit(ROWS + 1)


def matching(state: str, name: str) -> list[ColumnElement[bool]]:
    """The conditions for workflows without a parent, in a state and with a part of a name."""
    conditions: list[ColumnElement[bool]] = [Workflow.parent_id.is_(None)]
    if state:
        conditions.append(Workflow.state == _clean(state))
    if name:
        conditions.append(Workflow.name.icontains(_clean(name), autoescape=True))
    return conditions


def _clean(text: str) -> str:
    """The part of a text that a search uses: PostgreSQL has no NUL in a text."""
    return text[:200].replace("\0", "")


def one(id: str) -> Executable:
    """A workflow."""
    return select(*columns()).where(Workflow.id == id)


def columns() -> list[Any]:
    """The columns of workflows. An instant that Python can't represent is NULL."""
    return [
        if_representable(one).label(one.key) if isinstance(one.type, UTCDateTime) else one
        for one in Workflow.__table__.columns
    ]


def steps_of(id: str, limit: int) -> Executable:
    """The steps of a workflow and of those within it, and the state of their jobs as text."""
    family = select(Workflow.id).where(Workflow.id == id).cte("family", recursive=True)
    inner = aliased(Workflow)
    family = family.union(select(inner.id).join(family, inner.parent_id == family.c.id))
    # A step that has got ready keeps its old `waits`.
    is_waiting = cast(Job.state, Text) == JobState.SUSPENDED.value
    shown: Sequence[Any] = (
        *(Step.job_id, Step.name, Step.kind, Step.dependents, Step.workflow_id),
        case((is_waiting, Step.waits), else_=null()).label("waits"),
        func.coalesce(cast(Job.state, Text), Step.ended, "deleted").label("state"),
        *(Job.worker, Job.queue, Job.id.label("stored")),
        fetchable("attempted_at", Job.attempted_at),
        func.coalesce(
            *(fetchable(name, getattr(Job, name)) for name in _ENDED_AT), type_=UTCDateTime
        ).label("ended_at"),
    )
    return (
        select(*shown)
        .outerjoin(Job, Job.id == Step.job_id)
        .where(Step.workflow_id.in_(select(family.c.id)))
        .order_by(Step.job_id)
        .limit(limit)
    )


def waited_for(job: Mapping[str, Any]) -> Executable:
    """The steps that a job waits for, in its own workflow: `name`, `job_id`, `ended`."""
    return (
        select(Step.name, Step.job_id, Step.ended)
        .where(
            Step.workflow_id == str(job["meta"]["workflow_id"]),
            Step.dependents.contains([job["id"]]),
        )
        .order_by(Step.job_id)
        .limit(MOST_LISTED)
    )


def bar(counts: Mapping[str, int], total: int) -> list[Segment]:
    """The parts of a bar that shows the share of steps in each state."""
    segments, x = [], 0.0
    for state in COUNTS:
        if count := counts.get(state):
            width = 100 * count / max(total, 1)
            segments.append(Segment(state, round(x, 2), round(width, 2)))
            x += width
    return segments


def ended_steps(row: Any) -> dict[str, int]:
    """The numbers of ended steps by state. The row has no current counts of other states."""
    return {state: getattr(row, state) for state in ENDED}


def total(row: Any) -> int:
    """The number of steps of a workflow. Another Oban only stores the number for each state."""
    return int(row.total or sum(getattr(row, state) for state in COUNTS))
