"""The writes of a release: to the jobs, to the steps, and to the workflows."""

from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Integer,
    Text,
    and_,
    any_,
    case,
    cast,
    false,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..clock import interval
from ..models import Job, JobState
from ..statements.acknowledge import error_entry
from ..statements.ids import looked_up
from ..statements.states import constant
from .step import Step
from .workflow import Workflow


def move_jobs(targets: CTE, time: ColumnElement[Any]) -> CTE:
    """Make the jobs of the targets available, scheduled or cancelled."""
    change = targets.c
    due = func.greatest(Job.scheduled_at, time + interval(func.coalesce(change.delay, 0.0)))
    runs = case((due > time, constant(JobState.SCHEDULED)), else_=constant(JobState.AVAILABLE))
    return (
        update(Job)
        .where(looked_up(Job.id, change.job_id))
        .values(
            state=case((change.runs, runs), else_=constant(JobState.CANCELLED)),
            scheduled_at=case((change.runs, due), else_=Job.scheduled_at),
            cancelled_at=case((change.runs, Job.cancelled_at), else_=time),
            errors=case(
                (change.runs, Job.errors),
                else_=Job.errors.op("||")(error_entry(Job.attempt, time, change.reason)),
            ),
        )
        .returning(Job.id, Job.queue, Job.state, Job.scheduled_at)
        .cte("moved")
    )


def note_steps(uncounted: CTE, deps: CTE, targets: CTE, blocked: CTE) -> CTE:
    """Update the steps, each once, since a second change in a statement would be lost.

    A step that gets ready is not written, so its `waits` stays as it is.
    """
    nothing = null()
    ready = select(targets.c.job_id).where(targets.c.runs)
    satisfied = (
        select(
            deps.c.job_id,
            cast(nothing, Text).label("outcome"),
            func.count().label("satisfied"),
            cast(nothing, BigInteger).label("cause"),
            false().label("tried"),
        )
        .where(deps.c.rule == "run", deps.c.job_id.not_in(ready))
        .group_by(deps.c.job_id)
    )
    none: ColumnElement[int] = literal(0, Integer)
    counted = select(uncounted.c.job_id, uncounted.c.outcome, none, nothing, true())
    cancelled = select(
        targets.c.job_id, literal("cancelled", Text), none, targets.c.cause, false()
    ).where(not_(targets.c.runs))
    every = union_all(satisfied, counted, cancelled).subquery("every_change")
    change = (
        select(
            every.c.job_id,
            func.max(every.c.outcome).label("outcome"),
            func.sum(every.c.satisfied).label("satisfied"),
            func.max(every.c.cause).label("cause"),
            func.bool_or(every.c.tried).label("tried"),
        )
        .group_by(every.c.job_id)
        .subquery("change")
    ).c
    return (
        update(Step)
        .where(looked_up(Step.job_id, change.job_id), free_of(blocked, Step.path[1]))
        .values(
            ended=func.coalesce(change.outcome, Step.ended),
            waits=Step.waits - change.satisfied,
            cause=func.coalesce(change.cause, Step.cause),
            tried=or_(Step.tried, change.tried),
        )
        .returning(Step.job_id)
        .cte("noted")
    )


def update_counts(counts: CTE, blocked: CTE, time: ColumnElement[Any]) -> CTE:
    """Write the counts of the workflows, and the state of each workflow that ends."""
    left = counts.c
    over = and_(left.open <= 0, left.lasts <= 0)
    state = case(
        (left.discarded > 0, literal("discarded", Text)),
        (left.cancelled > 0, literal("cancelled", Text)),
        else_=literal("completed", Text),
    )
    names = ("open", "lasts", "untried", "completed", "cancelled", "discarded")
    return (
        update(Workflow)
        .where(looked_up(Workflow.id, left.id), free_of(blocked, left.root))
        .values(
            **{name: left[name] for name in names},
            state=case((over, state), else_=Workflow.state),
            completed_at=case((over, time), else_=Workflow.completed_at),
            unique_key=case((over, null()), else_=Workflow.unique_key),
            **{
                name: case((over, 0), else_=getattr(Workflow, name))
                for name in ("suspended", "available", "scheduled", "executing", "retryable")
            },
        )
        .returning(Workflow.id, Workflow.name, Workflow.state, left.was)
        .cte("counted")
    )


def free_of(blocked: CTE, root: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether the release of a root is not blocked."""
    roots = func.array(select(blocked.c.root).scalar_subquery(), type_=ARRAY(Text))
    return not_(root == any_(roots))
