"""Run the statements through each kind of `conn` that is not a session."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from inspect import isawaitable
from typing import Any, Protocol, runtime_checkable

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import Connection, Dialect
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from ..models import Job
from ..series import run_series, run_series_async
from ..statements.execute import Make, Parameters, compiled, execute_core
from . import encoding
from .batch import MOST_UNIQUE, encoded
from .from_rows import fill_from
from .observed import observed
from .unique import apart, steps

ACCEPTED = (
    "an AsyncSession, async_scoped_session, Session, scoped_session, AsyncConnection or Connection"
    " of SQLAlchemy, a connection or cursor of psycopg (sync or async), or an object with"
    " execute(sql, params)"
)

_Row = Sequence[Any]

# Its placeholders are those of psycopg's cursors.
_PSYCOPG: Dialect = psycopg_dialect.dialect()  # type: ignore[no-untyped-call]


@runtime_checkable
class Executes(Protocol):
    """An object that runs SQL with `%(name)s` parameters, sync or async.

    `execute` returns the rows, or an object with `fetchall()`, or `None` if the connection itself
    has `fetchall()`, like a DBAPI cursor.
    """

    def execute(self, sql: Any, params: Any, /) -> Any: ...


async def insert_through(conn: object, jobs: Sequence[Job], prefix: str | None) -> None:
    """Insert jobs through any connection: one statement for all jobs without unique keys."""
    refuse_unknown(conn)
    with observed(jobs):
        await insert_jobs(conn, jobs, prefix)


async def insert_jobs(conn: object, jobs: Sequence[Job], prefix: str | None) -> None:
    """`insert_through` without events."""
    plain, unique = apart(jobs)
    # Encoding finds bad input, so all jobs are encoded before any job is sent.
    batches = []
    for batch in encoded(plain):
        batches.append(batch)
        if len(batch.jobs) < len(jobs):
            await asyncio.sleep(0)
    unique_batches = list(encoded(unique, MOST_UNIQUE))
    encoding.refuse_unstorable(conn, (*batches, *unique_batches))
    for batch in batches:
        fill_from(await execute(conn, batch.make, batch.parameters, prefix), batch.jobs)
    for batch in unique_batches:
        await insert_unique_through(conn, batch.jobs, prefix)


async def insert_unique_through(conn: object, jobs: Sequence[Job], prefix: str | None) -> None:
    """Insert jobs that hold a unique key through any connection, step by step."""
    await run_series_async(steps(jobs), lambda step: execute(conn, *step, prefix))


def insert_unique_core(connection: Connection, jobs: Sequence[Job]) -> None:
    """Insert jobs that hold a unique key through a connection of SQLAlchemy."""
    run_series(steps(jobs), lambda step: execute_core(connection, *step, None))


def refuse_unknown(conn: object) -> None:
    """`TypeError`, before anything is sent, if `conn` is not a connection."""
    # asyncpg's execute() takes other parameters, so the statement would fail on the server.
    foreign = type(conn).__module__.partition(".")[0] == "asyncpg"
    if foreign or not isinstance(conn, Executes) or isinstance(conn, type):
        # Engines and the makers of sessions.
        begins = hasattr(conn, "begin") and not foreign and not isinstance(conn, type)
        hint = "; pass what its begin() gives, as in `async with engine.begin() as conn:`"
        raise TypeError(
            f"conn must be {ACCEPTED}; got {type(conn).__module__}.{type(conn).__qualname__}"
            f"{hint if begins else ''}"
        )


async def execute(
    conn: object, make: Make, parameters: Parameters, prefix: str | None
) -> Sequence[_Row]:
    """Execute a statement through any connection, in the schema of the tables."""
    if isinstance(conn, AsyncConnection):
        return await conn.run_sync(execute_core, make, parameters, prefix)
    if isinstance(conn, Connection):
        return execute_core(conn, make, parameters, prefix)
    statement = compiled(make, prefix, _PSYCOPG)
    sql, params = statement.text, statement.filled(parameters)
    # A new cursor, so that the user's result and row factory stay as they are.
    if isinstance(conn, psycopg.AsyncConnection | psycopg.AsyncCursor):
        connection = conn.connection if isinstance(conn, psycopg.AsyncCursor) else conn
        async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
            await cursor.execute(sql, params)
            return await cursor.fetchall()
    if isinstance(conn, psycopg.Connection | psycopg.Cursor):
        own = conn.connection if isinstance(conn, psycopg.Cursor) else conn
        with psycopg.Cursor(own, row_factory=tuple_row) as sync_cursor:
            return sync_cursor.execute(sql, params).fetchall()
    assert isinstance(conn, Executes)
    return await _execute_foreign(conn, sql, params)


async def _execute_foreign(conn: Executes, sql: str, params: Mapping[str, Any]) -> Sequence[_Row]:
    result = conn.execute(sql, params)
    if isawaitable(result):
        result = await result
    source = conn if result is None else result
    if hasattr(source, "fetchall"):
        result = source.fetchall()
        if isawaitable(result):
            result = await result
    if isinstance(result, str | bytes) or not isinstance(result, Iterable):
        raise TypeError(
            f"execute() of {type(conn).__qualname__} has to return the rows, or an object with"
            f" fetchall(); it returned {result!r}"
        )
    return [tuple(row.values()) if isinstance(row, Mapping) else tuple(row) for row in result]
