"""Acknowledge: move `executing` jobs to the states of their outcomes, fenced by the attempt."""

import json
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
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

from ..clock import database_now, interval
from ..models import JobState
from ..models.types import job_state
from .announce import announce_rows
from .cancel_mark import marked, with_meta
from .ids import looked_up
from .on_discard import enqueued
from .states import constant
from .tables import JOB, JOBS

OVERRULED = (JobState.RETRYABLE, JobState.SCHEDULED, JobState.DISCARDED)
"""The states that a job cancelled while it ran does not enter: it becomes `cancelled` instead."""


class Ack(NamedTuple):
    """The outcome of one attempt, as data."""

    id: int
    attempt: int
    attempted_at: datetime
    """The fence, with `attempt`: a job that was given back is claimed again as the same attempt."""
    state: JobState
    delay: float | None = None
    """Seconds until the job is due again, by the database's clock."""
    spent: bool = True
    """Whether the attempt counts."""
    error: str | None = None
    meta: dict[str, Any] | None = None
    """The entries to merge into the job's meta."""
    followed: bool = False
    """Whether other jobs may wait for the outcome, as in a workflow."""
    holds: float | None = None
    """For how many seconds no job of the same rate or key starts."""


@lru_cache(maxsize=16)
def acknowledge(*, skip_locked: bool = False, now: datetime | None = None) -> Select[int]:
    """Apply the outcomes in the parameter `acks`, which `outcomes()` makes.

    Returns the ids of the jobs whose outcomes applied. If another transaction holds the lock of a
    job, the statement waits for that transaction; with `skip_locked`, it skips the job.
    """
    applied = _applied(skip_locked, now, JOB.id)
    return select(applied.c.id)


@lru_cache(maxsize=16)
def acknowledge_discards(
    *, prefix: str | None = None, skip_locked: bool = False, now: datetime | None = None
) -> Select[int]:
    """`acknowledge` that also enqueues the `on_discard` jobs of discarded jobs."""
    applied = _applied(skip_locked, now, JOB.id, JOB.state, JOB.meta)
    return select(applied.c.id, announce_rows(enqueued(applied), prefix))


def _applied(skip_locked: bool, now: datetime | None, *returned: Any) -> CTE:
    ack = _locked(skip_locked).c
    time = database_now(now)
    due = time + interval(ack.delay)
    ended = and_(ack.state.in_([_name(state) for state in OVERRULED]), marked())

    def reached(state: JobState, otherwise: Any) -> ColumnElement[Any]:
        return case((ack.state == _name(state), time), else_=otherwise)

    return (
        update(JOBS)
        .where(looked_up(JOB.id, ack.id))
        .values(
            state=case((ended, constant(JobState.CANCELLED)), else_=cast(ack.state, job_state)),
            attempt=case((or_(ack.spent, ended), JOB.attempt), else_=JOB.attempt - 1),
            scheduled_at=case((or_(ack.delay.is_(None), ended), JOB.scheduled_at), else_=due),
            completed_at=reached(JobState.COMPLETED, JOB.completed_at),
            discarded_at=case(
                (ended, JOB.discarded_at), else_=reached(JobState.DISCARDED, JOB.discarded_at)
            ),
            cancelled_at=case((ended, time), else_=reached(JobState.CANCELLED, JOB.cancelled_at)),
            errors=case(
                (ack.error.is_(None), JOB.errors),
                else_=JOB.errors.op("||")(error_entry(ack.attempt, time, ack.error)),
            ),
            meta=case((ack.meta.is_(None), JOB.meta), else_=with_meta(ack.meta)),
        )
        .returning(*returned)
        .cte("acknowledged")
    )


@lru_cache(maxsize=2)
def unsettled() -> Select[int]:
    """The ids of the jobs in `acks` whose fence still holds: their outcomes are not written yet."""
    ack = _given()
    return select(JOB.id).join(ack, _fence(JOB, ack.c))


def outcomes(acks: Iterable[Ack]) -> dict[str, str]:
    """The parameter of `acknowledge`."""
    return encoded_outcomes(map(as_json, acks))


def encoded_outcomes(texts: Iterable[str]) -> dict[str, str]:
    """The parameter of `acknowledge`, from outcomes that `as_json` has encoded."""
    return {"acks": f"[{','.join(texts)}]"}


def as_json(ack: Ack) -> str:
    """Encode one outcome for the parameter. Raises if a value is not valid JSON."""
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
    # Cached: all jobs of a claim share one `attempted_at`.
    return instant.replace(tzinfo=None).isoformat()


def _locked(skip_locked: bool) -> CTE:
    ack = _given()
    job = JOBS.alias("job")
    return (
        select(ack)
        .join(job, _fence(job.c, ack.c))
        # NO KEY UPDATE does not block inserts of rows that refer to the job by a foreign key.
        .with_for_update(of=job, key_share=True, skip_locked=skip_locked)
        .cte("ack")
    )


def _fence(job: Any, ack: Any) -> ColumnElement[bool]:
    return and_(
        looked_up(job.id, ack.id),
        # The cast keeps the planner off the index of states. While any transaction is open, that
        # index keeps the dead entries of all jobs that were executing.
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
    # The planner expects 100 rows from any function, and would scan a table of 10,000 jobs for
    # them. Behind a limit that it can't foresee it expects 10, and looks up each id instead.
    # LIMIT NULL means no limit; psycopg2 needs the cast.
    no_limit = select(cast(null(), BigInteger)).scalar_subquery()
    return select(given).limit(no_limit).subquery("given_ack")


# Created once, because creating an encoder takes longer than encoding.
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
