"""Write outcomes back: `executing` to whatever the worker's outcome says, fenced by the attempt."""

import json
from collections.abc import Iterable, Sequence
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
    Subquery,
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
from sqlalchemy.orm import aliased

from ..clock import database_now, interval
from ..models import Job, JobState
from ..models.types import job_state
from .cancel_mark import marked, with_meta
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


@lru_cache(maxsize=16)
def acknowledge(*, skip_locked: bool = False, now: datetime | None = None) -> Select[int]:
    """Apply the `acks` of `outcomes()`, and return the ids of the jobs they applied to.

    With `skip_locked`, an outcome whose job is locked by another transaction does not apply;
    otherwise the statement waits for that transaction.
    """
    ack = _locked(skip_locked).c
    time = database_now(now)
    due = time + interval(ack.delay)
    ended = and_(ack.state.in_([_name(state) for state in OVERRULED]), marked())

    def reached(state: JobState, otherwise: Any) -> ColumnElement[Any]:
        return case((ack.state == _name(state), time), else_=otherwise)

    applied = (
        update(Job)
        .where(Job.id == ack.id)
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
    return select(applied.c.id)


@lru_cache(maxsize=2)
def unsettled() -> Select[int]:
    """The ids of the jobs among `acks` that still wait for their outcome."""
    ack = _given()
    return select(Job.id).join(ack, _fence(Job, ack.c))


def outcomes(acks: Sequence[Ack]) -> dict[str, str]:
    """The parameter of `acknowledge`.

    Sorted by id: whoever updates many jobs locks them in this order, so that none deadlocks.
    """
    return encoded_outcomes(as_json(ack) for ack in sorted(acks, key=attrgetter("id")))


def encoded_outcomes(texts: Iterable[str]) -> dict[str, str]:
    """The parameter of `acknowledge` of outcomes that `as_json` has encoded."""
    return {"acks": f"[{','.join(texts)}]"}


def as_json(ack: Ack) -> str:
    """One element of the parameter; raises for a value that is no JSON."""
    text = (
        f'{{"id": {ack.id}, "attempt": {ack.attempt}, "attempted_at": "{_naive(ack.attempted_at)}",'
        f' "state": "{ack.state}", "spent": {"true" if ack.spent else "false"}'
    )
    if ack.delay is None and ack.error is None and ack.meta is None:
        return text + "}"
    more = {"delay": ack.delay, "error": ack.error, "meta": ack.meta}
    given = {name: value for name, value in more.items() if value is not None}
    return f"{text}, {_encode(given)[1:]}"


@lru_cache(maxsize=16)
def _naive(instant: datetime) -> str:
    # All jobs of a claim have the same.
    return instant.replace(tzinfo=None).isoformat()


def _locked(skip_locked: bool) -> CTE:
    ack = _given()
    job = aliased(Job, name="job")
    return (
        select(ack)
        .join(job, _fence(job, ack.c))
        # NO KEY: rows of other tables may refer to the job, and be inserted meanwhile.
        .with_for_update(of=job, key_share=True, skip_locked=skip_locked)
        .cte("ack")
    )


def _fence(job: Any, ack: Any) -> ColumnElement[bool]:
    return and_(
        job.id == ack.id,
        # Cast to text, so that only the primary key is searched: entries of jobs that were
        # executing stay in the index of states while any transaction is open.
        cast(job.state, Text) == _name(JobState.EXECUTING),
        job.attempt == ack.attempt,
        job.attempted_at == ack.attempted_at,
    )


def _given() -> Subquery:
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
        .render_derived(name="given", with_types=True)
    )
    # The planner expects a hundred rows of any function, and would scan a table of 10,000 jobs for
    # them. It expects a tenth of that behind a limit it can't foresee, and searches by id instead.
    # NULL is no limit; the cast is for psycopg2.
    no_limit = select(cast(null(), BigInteger)).scalar_subquery()
    return select(given).limit(no_limit).subquery("given_ack")


# Made once: making an encoder takes longer than encoding.
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
