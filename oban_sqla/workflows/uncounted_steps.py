"""The reads of a release: the steps to count, the steps that wait for them, and the counts left."""

from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Integer,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    column,
    false,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased
from sqlalchemy.types import TypeEngine

from ..models import Job, JobState
from ..models.state import FINISHED
from ..statements.ids import looked_up
from ..statements.states import state_in
from .graph import LAST, STEP
from .step import Step
from .workflow import Workflow

IDS = ARRAY(BigInteger)
FAILED = ("cancelled", "discarded", "deleted")
_READ = ("job_id", "workflow_id", "path", "name", "kind", "dependents", "tried")
"""The columns of a step that a release reads."""


def uncounted_steps() -> CTE:
    """The steps to count, each with its outcome; NULL if only an attempt has ended.

    These are the steps of the jobs `ids`, and the steps that are cancelled because of them, which
    are not `given`.
    """
    given = _given_steps()
    failures = _failures(given)
    step = aliased(Step, name="doomed")
    doomed = (
        select(*(getattr(step, name) for name in _READ), failures.c.outcome, false().label("given"))
        .join(failures, looked_up(step.job_id, failures.c.job_id))
        .where(not_(failures.c.given))
    )
    return select(given, true().label("given")).union_all(doomed).cte("uncounted")


def _given_steps() -> CTE:
    step = aliased(Step, name="step")
    is_over = and_(step.ended.is_(None), or_(Job.id.is_(None), state_in(*FINISHED)))
    was_tried = and_(not_(step.tried), Job.attempt > 0, not_(state_in(JobState.EXECUTING)))
    outcome = case((Job.id.is_(None), literal("deleted", Text)), else_=cast(Job.state, Text))
    return (
        select(
            *(getattr(step, name) for name in _READ),
            case((is_over, outcome), else_=cast(null(), Text)).label("outcome"),
        )
        .outerjoin_from(step, Job, looked_up(Job.id, step.job_id))
        .where(
            step.job_id == any_(bindparam("ids", type_=IDS)),
            step.path[1] == any_(bindparam("roots", type_=ARRAY(Text))),
            or_(is_over, was_tried),
        )
        .cte("given_steps")
    )


def _failures(given: CTE) -> CTE:
    """The failed steps, and the steps that are cancelled because of them."""
    failed = (
        select(given.c.job_id, given.c.outcome, true().label("given"))
        .where(among(given.c.outcome, *FAILED))
        .cte("failures", recursive=True)
    )
    dep = aliased(Step, name="dep")
    dependent = unnested(dep.dependents, BigInteger(), "dependent")
    waiter = _open_step(dependent.c.id)
    cancelled = (
        select(waiter.job_id, literal("cancelled", Text), false())
        .select_from(failed)
        .join(dep, looked_up(dep.job_id, failed.c.job_id))
        .join(dependent, true())
        .join(waiter, true())
        .where(rule_for(waiter, failed.c.outcome) == "cancel", waits(waiter.job_id))
    )
    return failed.union(cancelled)


def deps_of_ended(uncounted: CTE) -> CTE:
    """The pairs of an ended step and a step that waits for it."""
    dep = uncounted.c
    dependent = unnested(dep.dependents, BigInteger(), "dependent")
    waiter = _open_step(dependent.c.id)
    return (
        select(
            waiter.job_id.label("job_id"),
            dep.job_id.label("cause"),
            dep.name.label("name"),
            dep.outcome,
            rule_for(waiter, dep.outcome).label("rule"),
            waiter.waits.label("waits"),
            waiter.delay.label("delay"),
            waiter.kind.label("kind"),
            waiter.path[1].label("root"),
        )
        .select_from(uncounted)
        .join(dependent, true())
        .join(waiter, true())
        .where(dep.outcome.is_not(None))
        .cte("deps")
    )


def counts_left(uncounted: CTE) -> CTE:
    """The workflows of the uncounted steps, and the numbers of steps that are left."""
    step = uncounted.c
    around = unnested(step.path, Text(), "around")
    own = around.c.id == step.workflow_id
    has_ended = step.outcome.is_not(None)
    is_last = and_(step.kind == LAST, own)

    def count(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
        return cast(func.count().filter(and_(*conditions)), Integer)

    more = (
        select(
            around.c.id.label("id"),
            count(has_ended, not_(is_last)).label("open"),
            count(has_ended, is_last).label("lasts"),
            count(own, step.kind == STEP, not_(step.tried)).label("untried"),
            count(step.outcome == "completed").label("completed"),
            count(among(step.outcome, "cancelled", "deleted")).label("cancelled"),
            count(step.outcome == "discarded").label("discarded"),
            func.min(step.path[1]).label("root"),
        )
        .select_from(uncounted)
        .join(around, true())
        .where(among(step.kind, STEP, LAST), or_(has_ended, own))
        .group_by(around.c.id)
        .cte("more")
    )
    # The LIMIT forbids a join, for which the planner would read all workflows.
    found = select(Workflow).where(Workflow.id == more.c.id).limit(1)
    flow = aliased(Workflow, found.correlate_except(Workflow).lateral("flow"))
    down, up = ("open", "lasts", "untried"), ("completed", "cancelled", "discarded")
    return (
        select(
            flow.id,
            *((getattr(flow, name) - more.c[name]).label(name) for name in down),
            *((getattr(flow, name) + more.c[name]).label(name) for name in up),
            flow.total,
            flow.state.label("was"),
            more.c.root,
        )
        .select_from(more)
        .join(flow, true())
        .cte("counts")
    )


def rule_for(waiter: Any, outcome: Any) -> ColumnElement[str]:
    """The rule of a waiting step for an outcome. After a completed dep, it may `run`."""
    return case(
        *((outcome == failed, getattr(waiter, f"on_{failed}")) for failed in FAILED),
        else_=literal("run", Text),
    )


def among(text: Any, *values: str) -> ColumnElement[bool]:
    """Whether a text is one of the values, which a `RawStatement` can send."""
    is_among: ColumnElement[bool] = text.in_([literal(value, Text) for value in values])
    return is_among


def waits(job_id: Any) -> ColumnElement[bool]:
    """Whether a job is suspended."""
    # No join: a planner that knows little of the table would begin with all suspended jobs.
    job = aliased(Job, name="waiting")
    state = select(cast(job.state, Text)).where(job.id == job_id).scalar_subquery()
    return state == literal(JobState.SUSPENDED.value, Text)


def has_workflow(step: Any) -> ColumnElement[bool]:
    """Whether the outermost workflow of a step is there. Somebody may have deleted its row."""
    # No join: a planner that knows little of the tables would read all workflows.
    outermost = aliased(Workflow, name="outermost")
    found = select(outermost.id).where(outermost.id == step.path[1]).scalar_subquery()
    return found.is_not(None)


def _open_step(job_id: Any) -> Any:
    """The step of a job, if the step has not ended."""
    # The LIMIT forbids a join: a planner that knows little of the table would begin with all steps
    # that have not ended.
    found = select(Step).where(Step.job_id == job_id, Step.ended.is_(None)).limit(1)
    return aliased(Step, found.correlate_except(Step).lateral("waiter"))


def unnested(array: Any, kind: TypeEngine[Any], name: str) -> Any:
    rows = func.unnest(array).table_valued(column("id", kind), name=name)
    return rows.render_derived()
