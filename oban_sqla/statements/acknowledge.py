"""Write outcomes back: `executing` to whatever the worker's outcome says, fenced by the attempt."""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Float,
    Select,
    SmallInteger,
    Text,
    and_,
    bindparam,
    case,
    cast,
    column,
    func,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from ..clock import database_now, interval
from ..models import Job, JobState
from ..models.types import job_state
from .mark import marked, with_meta
from .states import constant

OVERRULED = (JobState.RETRYABLE, JobState.SCHEDULED, JobState.DISCARDED)
"""The outcomes of a job that was cancelled meanwhile which leave it `cancelled`."""


class Ack(NamedTuple):
    """The outcome of one attempt, as data."""

    id: int
    attempt: int
    attempted_at: datetime
    """With `attempt` the fence: an attempt that was given back is counted again, later."""
    state: JobState
    delay: float | None = None
    """Seconds until it is due again, by the database's clock."""
    spent: bool = True
    """Whether the attempt counts."""
    error: str | None = None
    meta: dict[str, Any] | None = None
    """What to merge into the job's meta."""


def acknowledged(*, now: datetime | None = None) -> CTE:
    """The CTE that applies the `acks` of `outcomes()`, and returns the ids where it did."""
    given = (
        func.jsonb_to_recordset(cast(bindparam("acks", type_=Text), JSONB))
        .table_valued(
            column("id", BigInteger),
            column("attempt", SmallInteger),
            column("attempted_at", DateTime),
            column("state", Text),
            column("delay", Float),
            column("spent", Boolean),
            column("error", Text),
            column("meta", JSONB),
        )
        .render_derived(name="ack", with_types=True)
    )
    # The planner expects a hundred rows of any function, and for so many it would rather read a
    # table of 10,000 jobs. Of a limit that it can't foresee it expects a tenth: then it looks each
    # up by its id, in their order. NULL is no limit, of a type that psycopg2 would not send.
    no_limit = select(cast(null(), BigInteger)).scalar_subquery()
    ack = select(given).limit(no_limit).subquery("ack").c
    time = database_now(now)
    due = time + interval(ack.delay)
    ended = and_(ack.state.in_([_name(state) for state in OVERRULED]), marked())

    def reached(state: JobState, otherwise: Any) -> ColumnElement[Any]:
        return case((ack.state == _name(state), time), else_=otherwise)

    return (
        update(Job)
        # As text, so that nothing but the id is looked up: what was executing before a transaction
        # that is still open stays in the index of states.
        .where(Job.id == ack.id, cast(Job.state, Text) == _name(JobState.EXECUTING))
        .where(Job.attempt == ack.attempt, Job.attempted_at == ack.attempted_at)
        .values(
            state=case((ended, constant(JobState.CANCELLED)), else_=cast(ack.state, job_state)),
            attempt=case((or_(ack.spent, ended), Job.attempt), else_=Job.attempt - 1),
            scheduled_at=case((or_(ack.delay.is_(None), ended), Job.scheduled_at), else_=due),
            completed_at=reached(JobState.COMPLETED, Job.completed_at),
            discarded_at=case(
                (ended, Job.discarded_at), else_=reached(JobState.DISCARDED, Job.discarded_at)
            ),
            cancelled_at=case((ended, time), else_=reached(JobState.CANCELLED, Job.cancelled_at)),
            errors=case(
                (ack.error.is_(None), Job.errors),
                else_=Job.errors.op("||")(error_entry(ack.attempt, time, ack.error)),
            ),
            meta=case((ack.meta.is_(None), Job.meta), else_=with_meta(ack.meta)),
        )
        .returning(Job.id)
        .cte("acknowledged")
    )


@lru_cache(maxsize=8)
def acknowledge(*, now: datetime | None = None) -> Select[int]:
    """The same as a statement of its own."""
    return select(acknowledged(now=now).c.id)


def outcomes(acks: Sequence[Ack]) -> dict[str, str]:
    """The parameter of `acknowledged`.

    In the order of the ids, in which those who manage many jobs lock them, too.
    """
    return {"acks": _encode([_given(ack) for ack in sorted(acks, key=attrgetter("id"))])}


def _given(ack: Ack) -> dict[str, Any]:
    given = {
        "id": ack.id,
        "attempt": ack.attempt,
        "attempted_at": ack.attempted_at.replace(tzinfo=None).isoformat(),
        "state": ack.state,
        "spent": ack.spent,
    }
    if ack.delay is not None:
        given["delay"] = ack.delay
    if ack.error is not None:
        given["error"] = ack.error
    if ack.meta is not None:
        given["meta"] = ack.meta
    return given


# Of an encoder for each time the making would take longer than the encoding.
_encode = json.JSONEncoder().encode


def _name(state: JobState) -> ColumnElement[str]:
    return literal(state.value, Text)


def error_entry(
    attempt: Any, time: ColumnElement[Any], error: ColumnElement[str]
) -> ColumnElement[Any]:
    """One entry of `errors`, as Oban writes it."""
    return func.jsonb_build_object(
        literal("attempt", Text),
        attempt,
        literal("at", Text),
        func.to_char(time, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        literal("error", Text),
        error,
    )
