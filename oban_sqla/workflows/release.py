"""Release: one statement applies the outcomes of steps to the steps that wait for them.

The row of the outermost workflow is the lock of its whole graph, so that each release is done
exactly once. If another transaction has locked one of the jobs, nothing is written, and the release
is done later. The tables show releases that are still to do: a step has not `ended`, although its
job is finished or gone.
"""

from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Float,
    Integer,
    Select,
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
    union,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased
from sqlalchemy.types import TypeEngine

from ..clock import database_now, interval
from ..models import Job, JobState
from ..models.state import FINISHED
from ..statements.acknowledge import error_entry
from ..statements.states import constant, state_in
from .graph import LAST, STEP
from .step import Step
from .workflow import Workflow

_IDS = ARRAY(BigInteger)
_FAILED = ("cancelled", "discarded", "deleted")


@lru_cache(maxsize=4)
def lock(*, skip_locked: bool) -> Select[Any]:
    """Lock the outermost workflows of the jobs `ids`; returns each `root`, and if it is `locked`.

    They are locked in the order of their ids, so that two transactions can't deadlock.
    """
    roots = (
        select(Step.path[1].label("id"))
        .where(Step.job_id == any_(bindparam("ids", type_=_IDS)))
        .distinct()
        .cte("roots")
    )
    locked = (
        select(Workflow.id)
        .where(Workflow.id.in_(select(roots.c.id)))
        .order_by(Workflow.id)
        .with_for_update(key_share=True, skip_locked=skip_locked)
        .cte("locked")
    )
    return select(
        roots.c.id.label("root"), locked.c.id.is_not(None).label("locked")
    ).outerjoin_from(roots, locked, locked.c.id == roots.c.id)


@lru_cache(maxsize=4)
def release(*, now: datetime | None = None) -> Select[Any]:
    """Apply the current states of the jobs `ids` to the workflows `roots`, which are locked.

    Returns one row: the `queues` with new available jobs, when the next released job is `due_at`,
    the `cancelled` jobs, the `ended` workflows, and the `blocked` roots, which are left for later.
    """
    time = database_now(now)
    ended = _ended()
    deps = _deps(ended)
    counts = _counts(ended)
    targets = _targets(ended, deps, counts)
    free = (
        select(Job.id)
        .where(Job.id == any_(_array(targets.c.job_id)), _is_suspended(Job))
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
        .cte("free")
    )
    target = aliased(Step, name="target")
    blocked = (
        select(target.path[1].label("root"))
        .join(targets, targets.c.job_id == target.job_id)
        .where(targets.c.job_id.not_in(select(free.c.id)))
        .distinct()
        .cte("blocked")
    )
    moved = _move_jobs(targets, free, blocked, time)
    noted = _note_steps(ended, deps, targets, blocked)
    counted = _count(counts, blocked, time)
    available = select(moved.c.queue).where(moved.c.state == constant(JobState.AVAILABLE))
    later = select(func.min(moved.c.scheduled_at)).where(
        moved.c.state == constant(JobState.SCHEDULED)
    )
    cancelled = select(moved.c.id).where(moved.c.state == constant(JobState.CANCELLED))
    finished = select(
        func.jsonb_agg(func.jsonb_build_array(counted.c.id, counted.c.name, counted.c.state))
    ).where(counted.c.was == "executing", counted.c.state != "executing")
    return select(
        func.array(available.distinct().scalar_subquery()).label("queues"),
        later.scalar_subquery().label("due_at"),
        func.array(cancelled.scalar_subquery(), type_=_IDS).label("cancelled"),
        finished.scalar_subquery().label("ended"),
        func.array(select(blocked.c.root).scalar_subquery(), type_=ARRAY(Text)).label("blocked"),
        select(func.count()).select_from(noted).scalar_subquery().label("noted"),
    )


def _is_suspended(job: Any) -> ColumnElement[bool]:
    # Compared as text, so that the planner uses the primary key instead of the index of states.
    return cast(job.state, Text) == literal(JobState.SUSPENDED.value, Text)


def _waits(job_id: Any) -> ColumnElement[bool]:
    """Whether a job is suspended."""
    # No join: a planner that knows little of the table would begin with all suspended jobs.
    job = aliased(Job, name="waiting")
    state = select(cast(job.state, Text)).where(job.id == job_id).scalar_subquery()
    return state == literal(JobState.SUSPENDED.value, Text)


def _open_step(job_id: Any) -> Any:
    """The step of a job, if the step has not ended."""
    # Its LIMIT forbids a join: a planner that knows little of the table would begin with all steps
    # that have not ended.
    found = select(Step).where(Step.job_id == job_id, Step.ended.is_(None)).limit(1)
    return aliased(Step, found.correlate_except(Step).lateral("waiter"))


def unnested(array: Any, kind: TypeEngine[Any], name: str) -> Any:
    rows = func.unnest(array).table_valued(column("id", kind), name=name)
    return rows.render_derived()


def _array(values: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.array(select(values).scalar_subquery(), type_=_IDS)


def _ended() -> CTE:
    """The ended jobs with their outcomes, and the steps that are cancelled because of them."""
    step = aliased(Step, name="given")
    outcome = case((Job.id.is_(None), literal("deleted", Text)), else_=cast(Job.state, Text))
    ended = (
        select(step.job_id, outcome.label("outcome"), true().label("given"))
        .outerjoin_from(step, Job, Job.id == step.job_id)
        .where(
            step.job_id == any_(bindparam("ids", type_=_IDS)),
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
            ended.c.outcome.in_(_FAILED),
            rule_for(waiter, ended.c.outcome) == "cancel",
            _waits(waiter.job_id),
        )
    )
    return ended.union(cancelled)


def rule_for(waiter: Any, outcome: ColumnElement[str]) -> ColumnElement[str]:
    """The rule of a waiting step for an outcome. After a completed dep, it may `run`."""
    return case(
        *((outcome == failed, getattr(waiter, f"on_{failed}")) for failed in _FAILED),
        else_=literal("run", Text),
    )


def _deps(ended: CTE) -> CTE:
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


def _counts(ended: CTE) -> CTE:
    """The workflows of the ended steps, and the numbers of steps that are left."""
    step = aliased(Step, name="counted")
    around = unnested(step.path, Text(), "around")
    own = around.c.id == step.workflow_id
    is_last = and_(step.kind == LAST, own)

    def count(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.count().filter(condition)

    outcome = ended.c.outcome
    tried = _tried()
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


def _tried() -> Any:
    """The jobs of `ids` that have ended an attempt."""
    step = aliased(Step, name="at_work")
    return (
        select(step.job_id)
        .join(Job, Job.id == step.job_id)
        .where(
            step.job_id == any_(bindparam("ids", type_=_IDS)),
            step.path[1] == any_(bindparam("roots", type_=ARRAY(Text))),
            not_(step.tried),
            Job.attempt > 0,
            not_(state_in(JobState.EXECUTING)),
        )
        .subquery("tried")
    )


def _targets(ended: CTE, deps: CTE, counts: CTE) -> CTE:
    """The suspended jobs to run or to cancel, each once."""
    satisfied = func.count().filter(deps.c.rule == "run")
    ready = (
        select(
            deps.c.job_id,
            true().label("runs"),
            deps.c.delay,
            cast(null(), BigInteger).label("cause"),
            cast(null(), Text).label("reason"),
        )
        .where(deps.c.job_id.not_in(select(ended.c.job_id)), deps.c.kind == STEP)
        .group_by(deps.c.job_id, deps.c.waits, deps.c.delay)
        .having(deps.c.waits - satisfied <= 0)
    )
    reason = func.concat("the step '", deps.c.name, "' that it waits for was ", deps.c.outcome)
    doomed = (
        select(ended.c.job_id, false(), null(), func.min(deps.c.cause), func.min(reason))
        .join(deps, and_(deps.c.job_id == ended.c.job_id, deps.c.rule == "cancel"))
        .where(not_(ended.c.given))
        .group_by(ended.c.job_id)
    )
    # Its OFFSET forbids a join, and the use of the index of all steps that have not ended.
    callbacks = select(Step).where(Step.workflow_id == counts.c.id, Step.kind != STEP).offset(0)
    called = aliased(Step, callbacks.correlate_except(Step).lateral("called"))
    over = counts.c.open <= 0
    due = or_(
        and_(called.kind.in_((LAST, "on_exhausted")), over),
        and_(called.kind == "on_completed", over, counts.c.completed >= counts.c.total),
        and_(called.kind == "on_discarded", counts.c.discarded > 0),
        and_(called.kind == "on_cancelled", counts.c.cancelled > 0),
        and_(called.kind == "on_attempted", counts.c.untried <= 0),
    )
    fired = (
        select(called.job_id, due, null(), null(), literal("nothing called for it", Text))
        .select_from(counts)
        .join(called, true())
        .join(Job, Job.id == called.job_id)
        .where(
            called.ended.is_(None),
            called.job_id.not_in(select(ended.c.job_id)),
            _is_suspended(Job),
            or_(due, over),
        )
    )
    every = union_all(ready, doomed, fired).subquery("every")
    return (
        select(
            every.c.job_id,
            every.c.runs,
            cast(every.c.delay, Float).label("delay"),
            every.c.cause,
            every.c.reason,
        )
        .where(_waits(every.c.job_id))
        .cte("targets")
    )


def _free_of(blocked: CTE, root: ColumnElement[str]) -> ColumnElement[bool]:
    roots = func.array(select(blocked.c.root).scalar_subquery(), type_=ARRAY(Text))
    return not_(root == any_(roots))


def _move_jobs(targets: CTE, free: CTE, blocked: CTE, time: ColumnElement[Any]) -> CTE:
    step = aliased(Step, name="moving")
    changes = (
        select(targets)
        .join(step, step.job_id == targets.c.job_id)
        .where(
            _free_of(blocked, step.path[1]),
            # Without a join: the planner expects one row, and would compare all pairs of rows.
            targets.c.job_id.in_(select(free.c.id)).is_(true()),
        )
        .cte("changes")
    )
    change = changes.c
    due = func.greatest(Job.scheduled_at, time + interval(func.coalesce(change.delay, 0.0)))
    runs = case((due > time, constant(JobState.SCHEDULED)), else_=constant(JobState.AVAILABLE))
    return (
        update(Job)
        .where(Job.id == change.job_id)
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


def _note_steps(ended: CTE, deps: CTE, targets: CTE, blocked: CTE) -> CTE:
    """Update the steps, each once, since a second change in a statement would be lost."""
    nothing = null()
    satisfied = (
        select(
            deps.c.job_id,
            cast(nothing, Text).label("outcome"),
            func.count().label("satisfied"),
            cast(nothing, BigInteger).label("cause"),
            false().label("fired"),
            false().label("tried"),
        )
        .where(deps.c.rule == "run")
        .group_by(deps.c.job_id)
    )
    none: ColumnElement[int] = literal(0, Integer)
    outcomes = select(ended.c.job_id, ended.c.outcome, none, nothing, false(), true())
    cancelled = case((targets.c.runs, nothing), else_=literal("cancelled", Text))
    moves = select(targets.c.job_id, cancelled, none, targets.c.cause, targets.c.runs, false())
    tried = _tried()
    attempts = select(tried.c.job_id, nothing, none, nothing, false(), true())
    every = union_all(satisfied, outcomes, moves, attempts).subquery("every_change")
    change = (
        select(
            every.c.job_id,
            func.max(every.c.outcome).label("outcome"),
            func.sum(every.c.satisfied).label("satisfied"),
            func.max(every.c.cause).label("cause"),
            func.bool_or(every.c.fired).label("fired"),
            func.bool_or(every.c.tried).label("tried"),
        )
        .group_by(every.c.job_id)
        .subquery("change")
    ).c
    return (
        update(Step)
        .where(Step.job_id == change.job_id, _free_of(blocked, Step.path[1]))
        .values(
            ended=func.coalesce(change.outcome, Step.ended),
            waits=case((change.fired, 0), else_=Step.waits - change.satisfied),
            cause=func.coalesce(change.cause, Step.cause),
            tried=or_(Step.tried, change.tried),
        )
        .returning(Step.job_id)
        .cte("noted")
    )


def _count(counts: CTE, blocked: CTE, time: ColumnElement[Any]) -> CTE:
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
        .where(Workflow.id == left.id, _free_of(blocked, left.root))
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
