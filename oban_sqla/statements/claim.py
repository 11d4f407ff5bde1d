"""Claim: `available` to `executing`, for one producer."""

from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Executable,
    Integer,
    Select,
    SmallInteger,
    Text,
    any_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, array

from ..clock import database_now
from ..models.on_discard import ENTRY
from ..models.state import JobState
from ..models.types import UTCDateTime
from .acknowledge import error_entry
from .cancel_mark import MARK, marked
from .claimed import NONE_LEFT_MARK, claimed_columns
from .custom_plan import planned_anew
from .states import constant, state_in
from .tables import JOB, JOBS

CLAIMER = "oban_sqla"
"""The third element of `attempted_by`: oban_sqla claimed the job, so its producer beats."""

FRONT = {"after_priority": -1, "after_scheduled_at": datetime.min, "after_id": 0}
"""The position before all jobs of a queue."""

NONE_LEFT = "the job was available with no attempt left, so it is discarded"


@lru_cache(maxsize=8)
def claim_of_queue(*, now: datetime | None = None, keep_plan: bool = False) -> Executable:
    """Claim up to `limit` jobs of `queue_name` behind a position, for `producer` of `node_name`.

    The position is a point in the order of claims: `after_priority`, `after_scheduled_at` and
    `after_id`. Returns `claimed_columns` of each job. A job with no attempt left comes back
    `discarded`. If it were claimed, the table's check would fail the whole claim; if it were
    skipped, it would stay at the head of the queue. A job with `on_discard` and no attempt left
    comes back `executing`, with a mark in `attempted_by`.

    keep_plan: the server may keep a plan, which suits few jobs in a table that has not grown since.
    """
    plan = () if keep_plan else (planned_anew(),)
    chosen = first_available(of_queue(), behind_position(), *plan)
    jobs = executing(database_now(now), chosen)
    return select(*claimed_columns(jobs.c)).order_by(*claim_order(jobs.c))


@lru_cache(maxsize=8)
def claim(*, now: datetime | None = None) -> Executable:
    """Claim up to `limit` of the jobs with these `ids`; returns the rows of `claim_of_queue`."""
    chosen = JOB.id == any_(bindparam("ids", type_=ARRAY(BigInteger)))
    jobs = executing(database_now(now), first_available(chosen))
    return select(*claimed_columns(jobs.c)).order_by(*claim_order(jobs.c))


def claim_order(columns: Any) -> tuple[ColumnElement[Any], ...]:
    """The order in which the available jobs of a queue are claimed."""
    return columns.priority, columns.scheduled_at, columns.id


def of_queue() -> ColumnElement[bool]:
    """Whether a job is in the queue `queue_name`."""
    found: ColumnElement[bool] = JOB.queue == bindparam("queue_name", type_=Text)
    return found


def behind_position() -> ColumnElement[bool]:
    """Whether a job comes after the position in the parameters."""
    return tuple_(*claim_order(JOB)) > tuple_(
        bindparam("after_priority", type_=SmallInteger),
        bindparam("after_scheduled_at", type_=UTCDateTime),
        bindparam("after_id", type_=BigInteger),
    )


def first_available(*which: ColumnElement[bool], limit: Any = None) -> Select[int]:
    """Lock the first available jobs, and select their ids: at most `limit`, or the parameter."""
    most = bindparam("limit", type_=Integer) if limit is None else limit
    return (
        select(JOB.id)
        .where(state_in(JobState.AVAILABLE), *which)
        .order_by(*claim_order(JOB))
        .limit(most)
        # NO KEY UPDATE does not block inserts of rows that refer to the job by a foreign key.
        .with_for_update(key_share=True, skip_locked=True)
    )


def executing(time: ColumnElement[Any], ids: Select[int]) -> CTE:
    """Move the available jobs with these ids to `executing`, for `producer` of `node_name`."""
    left = JOB.attempt < JOB.max_attempts
    # The claim enqueues no jobs. The node discards such a job with an outcome, which does; if the
    # node dies before that, the rescue discards it.
    on_discard = JOB.meta.has_key(ENTRY)
    taken = or_(left, on_discard)
    claimer = (
        bindparam("node_name", type_=Text),
        bindparam("producer", type_=Text),
        literal(CLAIMER, Text),
    )
    return (
        update(JOBS)
        # An array instead of a join: for a join the planner expects a tenth of the table.
        .where(JOB.id == any_(func.array(ids.scalar_subquery(), type_=ARRAY(BigInteger))))
        .values(
            state=case((taken, constant(JobState.EXECUTING)), else_=constant(JobState.DISCARDED)),
            attempt=case((left, JOB.attempt + 1), else_=JOB.attempt),
            attempted_at=case((taken, time), else_=JOB.attempted_at),
            attempted_by=case(
                (left, array(claimer)),
                (on_discard, array([*claimer, literal(NONE_LEFT_MARK, Text)])),
                else_=JOB.attempted_by,
            ),
            discarded_at=case((taken, JOB.discarded_at), else_=time),
            # When oban-py retries a cancelled job, it leaves the mark there. An old mark must not
            # cancel the attempt that begins now.
            meta=case((marked(), JOB.meta.op("-")(literal(MARK, Text))), else_=JOB.meta),
            errors=case(
                (taken, JOB.errors),
                else_=JOB.errors.op("||")(error_entry(JOB.attempt, time, literal(NONE_LEFT, Text))),
            ),
        )
        .returning(*JOB)
        .cte("claimed")
    )
