"""Read workflows, the states of their steps, and the steps for which steps wait."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    Text,
    and_,
    case,
    cast,
    column,
    func,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ..clock import nearest
from ..models import Job, JobState
from ..models.types import UTCDateTime
from ..runtime.database import Database
from .step import Step
from .workflow import Workflow


@dataclass(frozen=True, slots=True)
class WorkflowSummary:
    """A workflow in a list."""

    id: str
    name: str | None
    state: str
    done: int
    total: int
    inserted_at: datetime
    completed_at: datetime | None
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class StepState:
    """The state of a step."""

    name: str
    kind: str
    job_id: int
    worker: str | None
    state: str
    """The state of the step's job, or `deleted`."""
    waits_for: tuple[str, ...]
    """The deps that have not ended."""
    error: str | None


@dataclass(frozen=True, slots=True)
class WorkflowDetails:
    """A workflow with its steps, and the workflows within it."""

    summary: WorkflowSummary
    steps: tuple[StepState, ...]
    within: tuple["WorkflowDetails", ...]


async def workflows(
    database: Database, *, state: str | None = None, name: str | None = None, limit: int = 20
) -> list[WorkflowSummary]:
    """The newest workflows that are not within another workflow."""
    query = select(*_summary()).where(Workflow.parent_id.is_(None))
    if state is not None:
        query = query.where(Workflow.state == state)
    if name is not None:
        query = query.where(Workflow.name == name)
    query = query.order_by(Workflow.inserted_at.desc(), Workflow.id).limit(limit)
    return [WorkflowSummary(*row) for row in await database.fetch(query)]


async def workflow_details(database: Database, id: str) -> WorkflowDetails | None:
    """A workflow with all its steps; `None` if there is none."""
    rows = await database.fetch(select(*_summary()).where(Workflow.id == id))
    if not rows:
        return None
    waits: dict[int, list[str]] = {}
    own = Job.id.in_(select(Step.job_id).where(Step.workflow_id == id))
    for job_id, waited, ended in await database.fetch(deps_of(own)):
        if ended is None:
            waits.setdefault(job_id, []).append(waited)
    # Other programs may have written any JSON there.
    error = Job.errors.op("#>>")(cast(["-1", "error"], ARRAY(Text)))
    query = (
        select(Step.name, Step.kind, Step.job_id, Job.worker, Job.state, error)
        .outerjoin(Job, Job.id == Step.job_id)
        .where(Step.workflow_id == id)
        .order_by(Step.job_id)
    )
    steps = [
        StepState(
            name,
            kind,
            job_id,
            worker,
            "deleted" if state is None else str(state.value),
            tuple(waits.get(job_id, ())),
            error,
        )
        for name, kind, job_id, worker, state, error in await database.fetch(query)
    ]
    inner = await database.fetch(
        select(Workflow.id).where(Workflow.parent_id == id).order_by(Workflow.inserted_at)
    )
    within = [await workflow_details(database, one) for (one,) in inner]
    return WorkflowDetails(
        WorkflowSummary(*rows[0]), tuple(steps), tuple(one for one in within if one is not None)
    )


def deps_of(which: ColumnElement[bool]) -> Executable:
    """The suspended jobs, with `name` of each step for which they wait, and how it has `ended`."""
    # Other programs may have written any JSON there.
    is_list = func.jsonb_typeof(Job.meta["deps"]) == "array"
    elements: Any = func.jsonb_array_elements(case((is_list, Job.meta["deps"])))
    deps = elements.table_valued(column("dep", JSONB), name="deps").render_derived()
    is_name = func.jsonb_typeof(deps.c.dep) == "string"
    workflow_id = case((is_name, Job.meta["workflow_id"].astext), else_=deps.c.dep.op("->>")(0))
    name = case(
        (is_name, deps.c.dep.op("#>>")(cast([], ARRAY(Text)))), else_=deps.c.dep.op("->>")(1)
    )
    return (
        select(Job.id, Step.name, Step.ended)
        .select_from(Job)
        .join(deps, true())
        .join(Step, and_(Step.workflow_id == workflow_id, Step.name == name))
        .where(which, Job.state == JobState.SUSPENDED)
        .order_by(Step.job_id)
    )


def _summary() -> Sequence[Any]:
    return (
        Workflow.id,
        Workflow.name,
        Workflow.state,
        (Workflow.total - Workflow.open - Workflow.lasts).label("done"),
        Workflow.total,
        type_coerce(nearest(Workflow.inserted_at), UTCDateTime).label("inserted_at"),
        type_coerce(nearest(Workflow.completed_at), UTCDateTime).label("completed_at"),
        Workflow.parent_id,
    )
