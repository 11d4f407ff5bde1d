"""Claim: `available` to `executing`, for one producer, together with its last outcomes."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Executable,
    Integer,
    Text,
    any_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    null,
    select,
    true,
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, array

from ..clock import database_now
from ..models import Job, JobState
from ..models.job import COLUMNS, detached
from ..models.notation import from_table
from ..models.types import Arguments, UTCDateTime
from .acknowledge import acknowledged, error_entry
from .mark import MARK, marked
from .planning import planned_anew
from .states import constant, state_in

CLAIMER = "oban_sqla"
"""The third element of `attempted_by`: the claimer is one of ours, so its heartbeat tells of it."""

NONE_LEFT = "the job was available with no attempt left, so it is discarded"


@lru_cache(maxsize=8)
def acknowledge_and_claim(*, now: datetime | None = None) -> Executable:
    """Apply `acks`, then claim up to `limit` jobs of `queue_name` for `producer` of `node_name`.

    Returns at least one row: the list of ids whose outcome applied, in the first one, and the
    columns of a claimed job, all NULL when nothing was claimed. A job with no attempt left comes
    back `discarded`: the table's own check would fail the claim, and skipping it would leave it
    ahead of all others.
    """
    acks = acknowledged(now=now)
    # The outcomes first: whoever waits to write one must not hold a claim that others wait for.
    written = select(func.count()).select_from(acks).scalar_subquery() >= 0
    jobs = _claimed(database_now(now), _of_queue(), written, planned_anew())
    applied = select(func.array_agg(acks.c.id, type_=ARRAY(BigInteger))).scalar_subquery()
    one = select(literal_column("1").label("one")).subquery("one")
    order = claim_order(jobs.c)
    # Not in each row: as many rows as ids, each with all of them, is a square.
    first = func.row_number().over(order_by=order) == literal_column("1")
    return (
        select(case((first, applied)).label("acknowledged"), *jobs.c)
        .select_from(one.outerjoin(jobs, true()))
        .order_by(*order)
    )


@lru_cache(maxsize=8)
def claim_of_queue(*, now: datetime | None = None) -> Executable:
    """The same without outcomes, of which there are none when a queue was idle: planned far sooner.

    Returns the same columns, the first of them NULL, and no row when nothing was claimed.
    """
    jobs = _claimed(database_now(now), _of_queue(), planned_anew())
    return select(null().label("acknowledged"), *jobs.c).order_by(*claim_order(jobs.c))


@lru_cache(maxsize=8)
def claim(*, now: datetime | None = None) -> Executable:
    """Claim up to `limit` of the jobs with these `ids`; the same columns, of claimed jobs alone."""
    chosen = Job.id == any_(bindparam("ids", type_=ARRAY(BigInteger)))
    jobs = _claimed(database_now(now), chosen)
    return select(*jobs.c).order_by(*claim_order(jobs.c))


def claimed(rows: Iterable[Any]) -> list[Job]:
    """The jobs in the rows of what claims for a queue; in them instants may have no time zone."""
    return [job(row[1:]) for row in rows if row[1] is not None]


def job(row: Sequence[Any]) -> Job:
    """The job in a row of `claim`, in which instants may have no time zone."""
    values = dict(zip(COLUMNS, row, strict=True))
    values["state"] = _STATES[values["state"]]
    values["args"] = from_table(values["args"])
    for instant in _INSTANTS:
        if (value := values[instant]) is not None:
            values[instant] = value.replace(tzinfo=UTC)
    return detached(values)


# By what they are, and by what they are in the database.
_STATES = {state: state for state in JobState}
_INSTANTS = tuple(column.key for column in Job.__table__.c if isinstance(column.type, UTCDateTime))

# Without the type of the arguments: not every way to the rows applies it.
_RETURNED = tuple(
    type_coerce(column, JSONB).label(column.key) if isinstance(column.type, Arguments) else column
    for column in Job.__table__.c
)


def claim_order(columns: Any) -> tuple[ColumnElement[Any], ...]:
    """The order in which the available jobs of a queue are claimed."""
    return columns.priority, columns.scheduled_at, columns.id


def _of_queue() -> ColumnElement[bool]:
    return Job.queue == bindparam("queue_name", type_=Text)


def _claimed(time: ColumnElement[Any], *which: ColumnElement[bool]) -> CTE:
    first = (
        select(Job.id)
        .where(state_in(JobState.AVAILABLE), *which)
        .order_by(*claim_order(Job))
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True)
    )
    left = Job.attempt < Job.max_attempts
    return (
        update(Job)
        # Not a join: for a prepared statement the planner would expect a tenth of the table.
        .where(Job.id == any_(func.array(first.scalar_subquery(), type_=ARRAY(BigInteger))))
        .values(
            state=case((left, constant(JobState.EXECUTING)), else_=constant(JobState.DISCARDED)),
            attempt=case((left, Job.attempt + 1), else_=Job.attempt),
            attempted_at=case((left, time), else_=Job.attempted_at),
            attempted_by=case(
                (
                    left,
                    array(
                        [
                            bindparam("node_name", type_=Text),
                            bindparam("producer", type_=Text),
                            literal(CLAIMER, Text),
                        ]
                    ),
                ),
                else_=Job.attempted_by,
            ),
            discarded_at=case((left, Job.discarded_at), else_=time),
            # oban-py marks what it cancels, and leaves the mark when it retries: it is not about
            # the attempt that begins now.
            meta=case((marked(), Job.meta.op("-")(literal(MARK, Text))), else_=Job.meta),
            errors=case(
                (left, Job.errors),
                else_=Job.errors.op("||")(error_entry(Job.attempt, time, literal(NONE_LEFT, Text))),
            ),
        )
        .returning(*_RETURNED)
        .cte("claimed")
    )
