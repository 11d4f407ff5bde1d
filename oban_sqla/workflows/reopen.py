"""Reopen: retried steps count as not ended, and the steps that they had cancelled wait again."""

from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    true,
    union,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from ..models import Job, JobState
from ..models.state import FINISHED
from ..statements.states import constant
from .graph import LAST, STEP
from .step import Step
from .uncounted_steps import rule_for, unnested
from .workflow import Workflow

_IDS = ARRAY(BigInteger)


@lru_cache(maxsize=4)
def reopen(*, now: datetime | None = None) -> Select[Any]:
    """Reopen the retried jobs `ids` in the workflows `roots`, which are locked.

    The steps that their failures have cancelled are suspended again. Returns their number.
    """
    reopened = _reopened()
    revived = aliased(Job, name="revived")
    free = (
        select(revived.id)
        .where(
            revived.id.in_(select(reopened.c.job_id).where(not_(reopened.c.given))),
            cast(revived.state, Text) == JobState.CANCELLED.value,
        )
        .order_by(revived.id)
        .with_for_update(skip_locked=True)
        .cte("free")
    )
    back = or_(reopened.c.given, reopened.c.job_id.in_(select(free.c.id)))
    again = select(reopened).where(back).cte("again")
    waiting = _still_waiting(again)
    jobs = (
        update(Job)
        .where(Job.id.in_(union(select(free.c.id), select(waiting.c.job_id))))
        .values(state=constant(JobState.SUSPENDED), cancelled_at=null())
        .returning(Job.id)
        .cte("suspended_again")
    )
    steps = _open_steps(again, waiting)
    workflows = _open_workflows(again)
    counts = (
        select(func.count()).select_from(one).scalar_subquery() for one in (steps, jobs, workflows)
    )
    return select(*counts)


def _reopened() -> CTE:
    step = aliased(Step, name="given")
    unfinished = cast(Job.state, Text).not_in([state.value for state in FINISHED])
    reopened = (
        select(step.job_id, step.ended.label("ended"), true().label("given"))
        .join(Job, Job.id == step.job_id)
        .where(
            step.job_id == any_(bindparam("ids", type_=_IDS)),
            step.path[1] == any_(bindparam("roots", type_=ARRAY(Text))),
            step.ended.is_not(None),
            unfinished,
        )
        .cte("reopened", recursive=True)
    )
    dep, waiter = aliased(Step, name="dep"), aliased(Step, name="waiter")
    dependent = unnested(dep.dependents, BigInteger(), "dependent")
    return reopened.union(
        select(waiter.job_id, waiter.ended, literal(False))
        .select_from(reopened)
        .join(dep, dep.job_id == reopened.c.job_id)
        .join(dependent, true())
        .join(waiter, waiter.job_id == dependent.c.id)
        .where(waiter.ended == "cancelled", waiter.cause == dep.job_id)
    )


def _still_waiting(again: CTE) -> CTE:
    """The retried jobs with a dep that has not ended, or that will run again, too.

    `deps` is the number of deps that each job waits for. It is counted anew: a release does not
    write the `waits` of a step that gets ready.
    """
    tree = select(func.unnest(bindparam("roots", type_=ARRAY(Text)), type_=Text).label("id")).cte(
        "tree", recursive=True
    )
    inner = aliased(Workflow, name="inner")
    tree = tree.union_all(select(inner.id).where(inner.parent_id == tree.c.id))
    dep, waiter = aliased(Step, name="open_dep"), aliased(Step, name="retried")
    dependent = unnested(dep.dependents, BigInteger(), "waiting_id")
    is_open = or_(dep.ended.is_(None), dep.job_id.in_(select(again.c.job_id)))
    return (
        select(dependent.c.id.label("job_id"), func.count().label("deps"))
        .select_from(dep)
        .join(dependent, true())
        .join(waiter, waiter.job_id == dependent.c.id)
        .where(
            dep.workflow_id.in_(select(tree.c.id)),
            or_(is_open, rule_for(waiter, dep.ended) != "run"),
            dependent.c.id.in_(select(again.c.job_id).where(again.c.given)),
        )
        .group_by(dependent.c.id)
        .having(func.bool_or(is_open))
        .cte("still_waiting")
    )


def _open_steps(again: CTE, waiting: CTE) -> CTE:
    """Let steps wait again for reopened deps whose outcomes had counted."""
    dep, waiter = aliased(Step, name="counted_dep"), aliased(Step, name="counting")
    dependent = unnested(dep.dependents, BigInteger(), "counting_id")
    job = aliased(Job, name="still_waiting")
    waits = (
        select(waiter.job_id, func.count().label("count"))
        .select_from(again)
        .join(dep, dep.job_id == again.c.job_id)
        .join(dependent, true())
        .join(waiter, waiter.job_id == dependent.c.id)
        .join(job, job.id == waiter.job_id)
        .where(
            rule_for(waiter, again.c.ended) == "run",
            or_(
                cast(job.state, Text).in_([JobState.SUSPENDED.value, JobState.CANCELLED.value]),
                waiter.job_id.in_(select(again.c.job_id)),
            ),
        )
        .group_by(waiter.job_id)
        .subquery("waits_again")
    )
    change = (
        select(
            func.coalesce(again.c.job_id, waits.c.job_id).label("job_id"),
            again.c.job_id.is_not(None).label("opens"),
            func.coalesce(waits.c.count, 0).label("count"),
            waiting.c.deps,
        )
        .select_from(again)
        .join(waits, waits.c.job_id == again.c.job_id, full=True)
        .outerjoin(waiting, waiting.c.job_id == again.c.job_id)
        .subquery("opening")
    ).c
    return (
        update(Step)
        .where(Step.job_id == change.job_id)
        .values(
            ended=case((change.opens, null()), else_=Step.ended),
            cause=case((change.opens, null()), else_=Step.cause),
            waits=func.coalesce(change.deps, Step.waits + change.count),
        )
        .returning(Step.job_id)
        .cte("opened_steps")
    )


def _open_workflows(again: CTE) -> CTE:
    step = aliased(Step, name="counted")
    around = unnested(step.path, Text(), "around")
    is_last = and_(step.kind == LAST, around.c.id == step.workflow_id)
    ended = again.c.ended
    more = (
        select(
            around.c.id.label("id"),
            func.count().filter(not_(is_last)).label("open"),
            func.count().filter(is_last).label("lasts"),
            func.count().filter(ended == "completed").label("completed"),
            func.count().filter(ended.in_(("cancelled", "deleted"))).label("cancelled"),
            func.count().filter(ended == "discarded").label("discarded"),
        )
        .select_from(again)
        .join(step, step.job_id == again.c.job_id)
        .join(around, true())
        .where(step.kind.in_((STEP, LAST)))
        .group_by(around.c.id)
        .subquery("more")
    ).c
    return (
        update(Workflow)
        .where(Workflow.id == more.id)
        .values(
            open=Workflow.open + more.open,
            lasts=Workflow.lasts + more.lasts,
            completed=Workflow.completed - more.completed,
            cancelled=Workflow.cancelled - more.cancelled,
            discarded=Workflow.discarded - more.discarded,
            state="executing",
            completed_at=null(),
        )
        .returning(Workflow.id)
        .cte("opened_workflows")
    )
