"""The statement of the history: the numbers of ended jobs by time and by wait."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    Float,
    Integer,
    Select,
    String,
    and_,
    case,
    cast,
    func,
    literal,
    select,
    tablesample,
    union_all,
)
from sqlalchemy.orm import aliased

from ..clock import database_now, interval, seconds
from ..models import Job, JobState
from ..statements.claimed import representable
from ..statements.states import constant

BUCKETS = 60
SHORTEST = 0.001
"""Seconds; all shorter waits are in one step."""
STEPS = 4
"""The number of steps of waits from one power of two to the next."""

ENDED: Mapping[JobState, str] = {
    JobState.COMPLETED: "completed_at",
    JobState.DISCARDED: "discarded_at",
    JobState.CANCELLED: "cancelled_at",
    JobState.RETRYABLE: "attempted_at",
}
"""The states of a job after an attempt, and the column with the time."""


def ended(window: float, *, share: float = 1.0, now: datetime | None = None) -> Executable:
    """Count the jobs that ended in the last `window` seconds.

    Returns a row for each `bucket`, `queue`, `state` (as text) and `step` of the wait, with the
    `count` and `until`, the end of the window. share: the part of the table's pages that is read.
    """
    time = database_now(now)
    since = time - interval(window)
    jobs = _all(since) if share >= 1 else _sample(since, share)
    recent = jobs.subquery("recent")
    passed = seconds(recent.c.ended_at - since) / (window / BUCKETS)
    bucket = cast(func.least(func.greatest(func.floor(passed), 0), BUCKETS - 1), Integer)
    columns: tuple[ColumnElement[Any], ...] = (
        bucket.label("bucket"),
        recent.c.queue,
        recent.c.state,
        _step(recent.c.wait).label("step"),
    )
    return select(*columns, func.count().label("count"), func.max(time).label("until")).group_by(
        *columns
    )


def are_more(window: float, limit: int, *, now: datetime | None = None) -> Executable:
    """Whether more than `limit` jobs of some state ended in the last `window` seconds."""
    since = database_now(now) - interval(window)

    def of(state: JobState, column: str) -> Any:
        found = select(literal(1).label("one")).where(
            Job.state == constant(state), getattr(Job, column) >= since
        )
        return select(func.count()).select_from(found.limit(limit + 1).subquery()).scalar_subquery()

    counts = [of(state, column) for state, column in ENDED.items()]
    return select(func.greatest(*counts) > limit)


def longest_wait(step: int) -> float:
    """The seconds of the longest wait of a step."""
    return float(SHORTEST * 2 ** (step / STEPS))


def _step(wait: ColumnElement[Any]) -> ColumnElement[Any]:
    """The step of a wait in seconds; NULL for a job that was never claimed."""
    powers = func.ln(func.greatest(wait, SHORTEST) / SHORTEST, type_=Float) / func.ln(2.0)
    return cast(func.ceil(powers * STEPS), Integer)


def _all(since: ColumnElement[Any]) -> Select[Any]:
    """The jobs of each state, along its index."""

    def of(state: JobState, column: str) -> Select[Any]:
        ended_at = getattr(Job, column)
        found = _columns(Job, literal(state.value, String), ended_at)
        is_recent = ended_at >= since, representable(ended_at)
        return found.where(Job.state == constant(state), *is_recent)

    return select(union_all(*(of(state, column) for state, column in ENDED.items())).subquery())


def _sample(since: ColumnElement[Any], share: float) -> Select[Any]:
    """The jobs in some pages of the table."""
    job: Any = aliased(Job, tablesample(Job.__table__, func.system(100 * share), name="sampled"))
    states = {state: job.state == constant(state) for state in ENDED}
    ended_at = case(*((states[state], getattr(job, name)) for state, name in ENDED.items()))
    name = case(*((is_state, literal(state.value, String)) for state, is_state in states.items()))
    return _columns(job, name, ended_at).where(ended_at >= since, representable(ended_at))


def _columns(job: Any, state: ColumnElement[Any], ended_at: ColumnElement[Any]) -> Select[Any]:
    known = and_(representable(job.attempted_at), representable(job.scheduled_at))
    wait = case((known, seconds(job.attempted_at - job.scheduled_at)))
    return select(job.queue, state.label("state"), ended_at.label("ended_at"), wait.label("wait"))
