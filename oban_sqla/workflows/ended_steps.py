"""The reads of a release: the ended steps, the steps that wait for them, and the counts left."""

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
    or_,
    select,
    true,
    union,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased
from sqlalchemy.types import TypeEngine

from ..models import Job, JobState
from ..models.state import FINISHED
from ..statements.states import state_in
from .graph import LAST, STEP
from .step import Step
from .workflow import Workflow

IDS = ARRAY(BigInteger)
FAILED = ("cancelled", "discarded", "deleted")


def ended_steps() -> CTE:
    """The ended jobs with their outcomes, and the steps that are cancelled because of them."""
    step = aliased(Step, name="given")
    outcome = case((Job.id.is_(None), literal("deleted", Text)), else_=cast(Job.state, Text))
    ended = (
        select(step.job_id, outcome.label("outcome"), true().label("given"))
        .outerjoin_from(step, Job, Job.id == step.job_id)
        .where(
            step.job_id == any_(bindparam("ids", type_=IDS)),
            step.path[1] == any_(bindparam("roots", type_=ARRAY(Text))),
            step.ended.is_(None),
            or_(Job.id.is_(None), state_in(*FINISHED)),
        )
        .cte("ended", recursive=True)
    )
    dep = aliased(Step, name="dep")
    dependent = unnested(dep.dependents, BigInteger(), "dependent")
    waiter = _open_step(dependent.c.id)
    cancelled = (
        select(waiter.job_id, literal("cancelled", Text), false())
        .select_from(ended)
        .join(dep, dep.job_id == ended.c.job_id)
        .join(dependent, true())
        .join(waiter, true())
        .where(
            ended.c.outcome.in_(FAILED),
            rule_for(waiter, ended.c.outcome) == "cancel",
            waits(waiter.job_id),
        )
    )
    return ended.union(cancelled)


def deps_of_ended(ended: CTE) -> CTE:
    """The pairs of an ended step and a step that waits for it."""
    dep = aliased(Step, name="dep")
    dependent = unnested(dep.dependents, BigInteger(), "dependent")
    waiter = _open_step(dependent.c.id)
    return (
        select(
            waiter.job_id.label("job_id"),
            dep.job_id.label("cause"),
            dep.name.label("name"),
            ended.c.outcome,
            rule_for(waiter, ended.c.outcome).label("rule"),
            waiter.waits.label("waits"),
            waiter.delay.label("delay"),
            waiter.kind.label("kind"),
        )
        .select_from(ended)
        .join(dep, dep.job_id == ended.c.job_id)
        .join(dependent, true())
        .join(waiter, true())
        .cte("deps")
    )


def counts_left(ended: CTE) -> CTE:
    """The workflows of the ended steps, and the numbers of steps that are left."""
    step = aliased(Step, name="counted")
    around = unnested(step.path, Text(), "around")
    own = around.c.id == step.workflow_id
    is_last = and_(step.kind == LAST, own)

    def count(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.count().filter(condition)

    outcome = ended.c.outcome
    tried = tried_jobs()
    more = (
        select(
            around.c.id.label("id"),
            count(not_(is_last)).label("open"),
            count(is_last).label("lasts"),
            count(outcome == "completed").label("completed"),
            count(outcome.in_(("cancelled", "deleted"))).label("cancelled"),
            count(outcome == "discarded").label("discarded"),
            func.min(step.path[1]).label("root"),
        )
        .select_from(ended)
        .join(step, step.job_id == ended.c.job_id)
        .join(around, true())
        .where(step.kind.in_((STEP, LAST)))
        .group_by(around.c.id)
        .cte("more")
    )
    untried = aliased(Step, name="untried")
    attempted = union(select(ended.c.job_id), select(tried.c.job_id)).subquery("attempted")
    attempts = (
        select(
            untried.workflow_id.label("id"),
            func.count().label("tried"),
            func.min(untried.path[1]).label("root"),
        )
        .join(attempted, attempted.c.job_id == untried.job_id)
        .where(not_(untried.tried), untried.kind == STEP)
        .group_by(untried.workflow_id)
        .cte("attempts")
    )
    zero = literal(0, Integer)
    changed = union(select(more.c.id), select(attempts.c.id)).subquery("changed")
    # Its LIMIT forbids a join: the planner would read all workflows.
    found = select(Workflow).where(Workflow.id == changed.c.id).limit(1)
    flow = aliased(Workflow, found.correlate_except(Workflow).lateral("flow"))
    left = {
        name: getattr(flow, name) - func.coalesce(more.c[name], zero) for name in ("open", "lasts")
    }
    return (
        select(
            flow.id,
            *(value.label(name) for name, value in left.items()),
            (flow.untried - func.coalesce(attempts.c.tried, zero)).label("untried"),
            *(
                (getattr(flow, name) + func.coalesce(more.c[name], zero)).label(name)
                for name in ("completed", "cancelled", "discarded")
            ),
            flow.total,
            flow.state.label("was"),
            func.coalesce(more.c.root, attempts.c.root).label("root"),
        )
        .select_from(changed)
        .join(flow, true())
        .outerjoin(more, more.c.id == flow.id)
        .outerjoin(attempts, attempts.c.id == flow.id)
        .cte("counts")
    )


def tried_jobs() -> Any:
    """The jobs of `ids` that have ended an attempt."""
    step = aliased(Step, name="at_work")
    return (
        select(step.job_id)
        .join(Job, Job.id == step.job_id)
        .where(
            step.job_id == any_(bindparam("ids", type_=IDS)),
            step.path[1] == any_(bindparam("roots", type_=ARRAY(Text))),
            not_(step.tried),
            Job.attempt > 0,
            not_(state_in(JobState.EXECUTING)),
        )
        .subquery("tried")
    )


def rule_for(waiter: Any, outcome: ColumnElement[str]) -> ColumnElement[str]:
    """The rule of a waiting step for an outcome. After a completed dep, it may `run`."""
    return case(
        *((outcome == failed, getattr(waiter, f"on_{failed}")) for failed in FAILED),
        else_=literal("run", Text),
    )


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
    # Its LIMIT forbids a join: a planner that knows little of the table would begin with all steps
    # that have not ended.
    found = select(Step).where(Step.job_id == job_id, Step.ended.is_(None)).limit(1)
    return aliased(Step, found.correlate_except(Step).lateral("waiter"))


def unnested(array: Any, kind: TypeEngine[Any], name: str) -> Any:
    rows = func.unnest(array).table_valued(column("id", kind), name=name)
    return rows.render_derived()
