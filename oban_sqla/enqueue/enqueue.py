"""Enqueue jobs in the transaction of the caller's session or connection."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import psycopg
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.orm.attributes import instance_state

from .. import instances
from ..models import Job
from ..models.instrumentation import values_of
from ..models.job import GIVEN
from ..models.state import NEW
from ..models.unique_job import restore
from ..statements.insert import FIELDS
from . import references
from .connections import Executes, insert_through
from .from_rows import make_new
from .session_of import session_of

_NEEDED = frozenset(FIELDS)

Conn: TypeAlias = (
    AsyncSession
    | async_scoped_session[AsyncSession]
    | Session
    | scoped_session[Session]
    | AsyncConnection
    | Connection
    | psycopg.AsyncConnection
    | psycopg.AsyncCursor
    | psycopg.Connection
    | psycopg.Cursor
    | Executes
)
"""The accepted kinds of `conn`."""


async def enqueue(jobs: Sequence[Job], conn: Conn, *, prefix: str | None = None) -> None:
    """Enqueue jobs in the transaction of `conn`.

    Jobs are added to a session, and its next flush inserts them. Any other connection inserts them
    now. Afterwards each job has its `id`, `state`, `scheduled_at` and `inserted_at`, and is
    detached. `prefix` is the schema of the tables, unless the connection has a
    `schema_translate_map`.

    A job that was enqueued before becomes a new row, since the first transaction may have been
    rolled back. A duplicate that is enqueued again has its own values again.

    `TypeError` for an object that is not a job, and for another kind of `conn`. `ValueError` for a
    job that is given twice, that a session has already, or that has already started.
    """
    session = session_of(conn)
    prepare(jobs, session)
    if session is None:
        references.refuse_without_key(jobs)
        await insert_through(conn, jobs, prefix)
        return
    for job in jobs:
        if instance_state(job).detached:
            make_new(job)
    session.add_all(jobs)


async def enqueue_by_name(job: Job, conn: Conn | None, name: str) -> None:
    """Enqueue through `conn`, or in a transaction of the instance with this name."""
    if conn is None:
        await instances.get(name).enqueue(job)
        return
    instance = instances.find(name)
    await enqueue([job], conn, prefix=instance.prefix if instance else None)


def each(jobs: Iterable[Job | Iterable[Job]]) -> Iterator[Job]:
    """Iterate over jobs that are given one by one, in iterables, or both."""
    for given in jobs:
        if isinstance(given, Iterable) and not isinstance(given, str | bytes):
            yield from given
        else:
            yield given


def prepare(jobs: Sequence[Job], session: Session | None = None) -> None:
    """Check that jobs can be enqueued, by a session or without one. Restore earlier duplicates.

    `TypeError` for an object that is not a job. `ValueError` for a job that is given twice, that a
    session has already, or that has already started.
    """
    for job in jobs:
        _prepare(job, session)
    refuse_twice(jobs)


def refuse_twice(jobs: Sequence[Job]) -> None:
    """`ValueError` for a job that is given twice."""
    if len({id(job) for job in jobs}) < len(jobs):
        raise ValueError("the same job was given twice; make each job with a call of new()")


def _prepare(job: object, session: Session | None) -> None:
    if not isinstance(job, Job):
        raise TypeError(f"can only enqueue a Job, such as Worker.new({{...}}) makes; got {job!r}")
    state = instance_state(job)
    if state.session is not None and not (state.pending and state.session is session):
        raise ValueError(f"{job!r} is in a session already; its flush inserts the job")
    values = values_of(job)
    if GIVEN in values:
        restore(job)
    if not values.keys() >= _NEEDED:
        expired = ", ".join(field for field in FIELDS if field not in values)
        raise ValueError(
            f"{job!r} can't be enqueued again: its {expired} expired with its session; make another"
            " job with new()"
        )
    if values["state"] not in NEW:
        raise ValueError(f"{job!r} has already started; make another job with new()")
