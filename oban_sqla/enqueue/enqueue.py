"""Enqueue jobs in the transaction of whatever the caller holds."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import psycopg
from sqlalchemy import Connection, inspect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from .. import instances
from ..models import Job
from .connections import Executes, insert_through

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
"""What `conn` may be."""


async def enqueue(jobs: Sequence[Job], conn: Conn, *, prefix: str | None = None) -> None:
    """Enqueue jobs in the transaction of `conn`.

    A session has them added and nothing is sent: they are inserted by its next flush. Any other
    connection inserts them now, and each job has its `id`, `state`, `scheduled_at` and
    `inserted_at` afterwards, and is detached. `prefix` is the schema of the tables, unless the
    connection has a `schema_translate_map` of its own.

    `TypeError` for what is not a job, and for a `conn` of another kind; `ValueError` for a job
    given twice, or one that a session has already.
    """
    _check(jobs)
    if isinstance(conn, AsyncSession | async_scoped_session | Session | scoped_session):
        conn.add_all(jobs)
        return
    for job in jobs:
        if inspect(job).session is not None:
            raise ValueError(f"{job!r} is in a session already, which will insert it")
    await insert_through(conn, jobs, prefix)


async def enqueue_by_name(jobs: Sequence[Job], conn: Conn | None, name: str) -> None:
    """Enqueue through `conn`, or in a transaction of the instance with this name."""
    if conn is None:
        await instances.get(name).enqueue_many(jobs)
        return
    instance = instances.find(name)
    await enqueue(jobs, conn, prefix=instance.prefix if instance else None)


def gather(jobs: Iterable[Job | Iterable[Job]]) -> list[Job]:
    """The jobs that were given one by one, in iterables, or both."""
    gathered: list[Job] = []
    for given in jobs:
        if isinstance(given, Iterable) and not isinstance(given, str | bytes):
            gathered.extend(given)
        else:
            gathered.append(given)
    return gathered


def _check(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if not isinstance(job, Job):
            raise TypeError(
                f"can only enqueue a Job, such as Worker.new({{...}}) makes; got {job!r}"
            )
    if len({id(job) for job in jobs}) < len(jobs):
        raise ValueError("the same job was given twice; make one with new() for each")
