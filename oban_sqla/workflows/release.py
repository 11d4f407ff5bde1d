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
    Select,
    Text,
    and_,
    any_,
    bindparam,
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
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from ..clock import database_now, nearest
from ..models import Job, JobState
from ..statements.states import constant
from .graph import LAST, STEP
from .release_writes import free_of, move_jobs, note_steps, update_counts
from .step import Step
from .uncounted_steps import (
    IDS,
    among,
    counts_left,
    deps_of_ended,
    has_workflow,
    uncounted_steps,
    waits,
)
from .workflow import Workflow


@lru_cache(maxsize=4)
def lock(*, skip_locked: bool) -> Select[Any]:
    """Lock the outermost workflows of the jobs `ids`; returns each `root`, and if it is `locked`.

    They are locked in the order of their ids, so that two transactions can't deadlock.
    """
    roots = (
        select(Step.path[1].label("id"))
        .where(Step.job_id == any_(bindparam("ids", type_=IDS)), has_workflow(Step))
        .distinct()
        .cte("roots")
    )
    locked = (
        select(Workflow.id)
        .where(Workflow.id == any_(_array(roots.c.id, ARRAY(Text))))
        .order_by(Workflow.id)
        .with_for_update(key_share=True, skip_locked=skip_locked)
        .cte("locked")
    )
    return select(roots.c.id.label("root"), roots.c.id.in_(select(locked.c.id)).label("locked"))


@lru_cache(maxsize=4)
def release(*, now: datetime | None = None) -> Select[Any]:
    """Apply the current states of the jobs `ids` to the workflows `roots`, which are locked.

    Returns one row: the `queues` with new available jobs, when the next released job is `due_at`,
    the `cancelled` jobs, the `ended` workflows, and the `blocked` roots, which are left for later.
    """
    time = database_now(now)
    uncounted = uncounted_steps()
    deps = deps_of_ended(uncounted)
    counts = counts_left(uncounted)
    candidates = _candidates(uncounted, deps, counts)
    free = (
        select(Job.id)
        .where(Job.id == any_(_array(candidates.c.job_id, IDS)), _is_suspended(Job))
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
        .cte("free")
    )
    # A candidate that is not free has moved before, or another transaction has locked it.
    blocked = (
        select(candidates.c.root)
        .where(candidates.c.job_id.not_in(select(free.c.id)), waits(candidates.c.job_id))
        .distinct()
        .cte("blocked")
    )
    targets = (
        select(candidates)
        .where(
            free_of(blocked, candidates.c.root),
            # Without a join: the planner expects one row, and would compare all pairs of rows.
            candidates.c.job_id.in_(select(free.c.id)).is_(true()),
        )
        .cte("targets")
    )
    moved = move_jobs(targets, time)
    noted = note_steps(uncounted, deps, targets, blocked)
    counted = update_counts(counts, blocked, time)
    available = select(moved.c.queue).where(moved.c.state == constant(JobState.AVAILABLE))
    later = select(func.min(nearest(moved.c.scheduled_at))).where(
        moved.c.state == constant(JobState.SCHEDULED)
    )
    cancelled = select(moved.c.id).where(moved.c.state == constant(JobState.CANCELLED))
    finished = select(
        func.jsonb_agg(func.jsonb_build_array(counted.c.id, counted.c.name, counted.c.state))
    ).where(counted.c.was == "executing", counted.c.state != "executing")
    return select(
        func.array(available.distinct().scalar_subquery()).label("queues"),
        later.scalar_subquery().label("due_at"),
        func.array(cancelled.scalar_subquery(), type_=IDS).label("cancelled"),
        finished.scalar_subquery().label("ended"),
        func.array(select(blocked.c.root).scalar_subquery(), type_=ARRAY(Text)).label("blocked"),
        select(func.count()).select_from(noted).scalar_subquery().label("noted"),
    )


def _candidates(uncounted: CTE, deps: CTE, counts: CTE) -> CTE:
    """The jobs to run or to cancel if they are suspended, each once."""
    known = select(uncounted.c.job_id).where(uncounted.c.outcome.is_not(None))
    satisfied = func.count().filter(deps.c.rule == "run")
    ready = (
        select(
            deps.c.job_id,
            true().label("runs"),
            deps.c.delay,
            cast(null(), BigInteger).label("cause"),
            cast(null(), Text).label("reason"),
            deps.c.root,
        )
        .where(deps.c.job_id.not_in(known), deps.c.kind == STEP)
        .group_by(deps.c.job_id, deps.c.waits, deps.c.delay, deps.c.root)
        .having(deps.c.waits - satisfied <= 0)
    )
    reason = func.concat("the step '", deps.c.name, "' that it waits for was ", deps.c.outcome)
    doomed = (
        select(
            deps.c.job_id, false(), null(), func.min(deps.c.cause), func.min(reason), deps.c.root
        )
        .join(uncounted, and_(uncounted.c.job_id == deps.c.job_id, not_(uncounted.c.given)))
        .where(deps.c.rule == "cancel")
        .group_by(deps.c.job_id, deps.c.root)
    )
    over, all_tried = counts.c.open <= 0, counts.c.untried <= 0
    # Most workflows have nothing to call yet: the server then reads none of their steps.
    may_call = or_(over, all_tried, counts.c.discarded > 0, counts.c.cancelled > 0)
    # The OFFSET forbids a join, and the use of the index of all steps that have not ended.
    callbacks = (
        select(Step).where(may_call, Step.workflow_id == counts.c.id, Step.kind != STEP).offset(0)
    )
    called = aliased(Step, callbacks.correlate_except(Step).lateral("called"))
    due = or_(
        and_(among(called.kind, LAST, "on_exhausted"), over),
        and_(called.kind == "on_completed", over, counts.c.completed >= counts.c.total),
        and_(called.kind == "on_discarded", counts.c.discarded > 0),
        and_(called.kind == "on_cancelled", counts.c.cancelled > 0),
        and_(called.kind == "on_attempted", all_tried),
    )
    fired = (
        select(
            called.job_id,
            due,
            null(),
            null(),
            literal("the batch has ended without the condition of this callback", Text),
            counts.c.root,
        )
        .select_from(counts)
        .join(called, true())
        .where(called.ended.is_(None), called.job_id.not_in(known), or_(due, over))
    )
    every = union_all(ready, doomed, fired).subquery("every")
    return select(
        every.c.job_id,
        every.c.runs,
        cast(every.c.delay, Float).label("delay"),
        every.c.cause,
        every.c.reason,
        every.c.root,
    ).cte("candidates")


def _is_suspended(job: Any) -> ColumnElement[bool]:
    # Compared as text, so that the planner uses the primary key instead of the index of states.
    return cast(job.state, Text) == literal(JobState.SUSPENDED.value, Text)


def _array(values: ColumnElement[Any], kind: ARRAY[Any]) -> ColumnElement[Any]:
    return func.array(select(values).scalar_subquery(), type_=kind)
