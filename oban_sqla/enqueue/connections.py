"""What a `conn` may be, besides a session, and how each of them runs the insert."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from inspect import isawaitable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import Connection, Dialect, TwoPhaseTransaction, inspect
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import make_transient, make_transient_to_detached

from ..models import Job, validation
from ..statements.insert import insert, records

ACCEPTED = (
    "an AsyncSession, async_scoped_session, Session, scoped_session, AsyncConnection or Connection"
    " of SQLAlchemy, a connection or cursor of psycopg (sync or async), or an object with"
    " execute(sql, params)"
)
# One parameter has to stay far below the 256 MB that a jsonb array may hold.
MOST_ROWS = 10_000
MOST_CHARACTERS = 16_000_000

UNSET = ("attempted_at", "cancelled_at", "completed_at", "discarded_at")
"""Columns that a new row leaves NULL: a detached job could not load them."""

Batch: TypeAlias = tuple[Sequence[Job], str]
"""Jobs, and the parameter of the one statement that inserts them."""

_Row = Sequence[Any]


@runtime_checkable
class Executes(Protocol):
    """Anything that runs SQL with `%(name)s` parameters, awaitable or not.

    `execute` returns the rows, or something with `fetchall()`, or nothing if the object itself has
    `fetchall()`, as a DBAPI cursor does.
    """

    def execute(self, sql: Any, params: Any, /) -> Any: ...


async def insert_through(conn: object, jobs: Sequence[Job], prefix: str | None) -> None:
    """Insert jobs with the one Core statement, through any connection."""
    refuse_unknown(conn)
    # All of them are encoded before any is sent, since that is where bad input shows.
    for batch, text in list(encoded(jobs)):
        fill(batch, await _execute(conn, text, prefix))


def refuse_unknown(conn: object) -> None:
    """`TypeError`, before anything is sent, for what is not a connection."""
    # asyncpg has an execute() that takes its parameters otherwise: it would fail on the server.
    foreign = type(conn).__module__.partition(".")[0] == "asyncpg"
    if foreign or not isinstance(conn, Executes) or isinstance(conn, type):
        raise TypeError(
            f"conn must be {ACCEPTED}; got {type(conn).__module__}.{type(conn).__qualname__}"
        )


def execute_core(connection: Connection, text: str, prefix: str | None) -> Sequence[_Row]:
    """Insert a batch; returns the id and `inserted_at` of each job, in their order."""
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    home = schemas.get(None) or prefix
    options = {"schema_translate_map": {**schemas, None: home}} if home else {}
    # PostgreSQL refuses to PREPARE a transaction that has notified anybody.
    announced = not isinstance(connection.get_transaction(), TwoPhaseTransaction)
    statement = insert(prefix=home, announced=announced)
    return connection.execute(statement, {"jobs": text}, execution_options=options).all()


def encoded(jobs: Sequence[Job]) -> Iterator[Batch]:
    """The batches of any number of jobs.

    `ValueError` or `TypeError` for what can't be stored.
    """
    for start in range(0, len(jobs), MOST_ROWS):
        yield from _halved(jobs[start : start + MOST_ROWS])


def _halved(jobs: Sequence[Job]) -> Iterator[Batch]:
    text = records(jobs)
    if len(text) <= MOST_CHARACTERS or len(jobs) == 1:
        yield jobs, text
        return
    middle = len(jobs) // 2
    yield from _halved(jobs[:middle])
    yield from _halved(jobs[middle:])


def fill(jobs: Sequence[Job], rows: Sequence[_Row]) -> None:
    """Give jobs what their rows say, and make them detached: adding one inserts nothing."""
    if len(rows) != len(jobs):
        raise ValueError(f"execute() returned {len(rows)} rows for {len(jobs)} jobs")
    # All rows of a statement have the same one.
    inserted_at = validation.instant("inserted_at", rows[0][1])
    for job, row in zip(jobs, rows, strict=True):
        values = vars(job)
        if "id" in values and inspect(job).key is not None:
            # Inserted before, in a transaction that was rolled back perhaps: it is a new row now.
            make_transient(job)
        values["id"] = row[0]
        values["inserted_at"] = inserted_at
        values.setdefault("scheduled_at", inserted_at)
        for column in UNSET:
            values.setdefault(column, None)
        make_transient_to_detached(job)


async def _execute(conn: object, text: str, prefix: str | None) -> Sequence[_Row]:
    if isinstance(conn, AsyncConnection):
        return await conn.run_sync(execute_core, text, prefix)
    if isinstance(conn, Connection):
        return execute_core(conn, text, prefix)
    sql, params = _compiled(prefix)
    params = {**params, "jobs": text}
    # A cursor of our own, so that neither the user's result nor a row factory is in the way.
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
            f"execute() of {type(conn).__qualname__} has to return the rows, or something with"
            f" fetchall(); it returned {result!r}"
        )
    return [tuple(row.values()) if isinstance(row, Mapping) else tuple(row) for row in result]


@lru_cache(maxsize=64)
def _compiled(prefix: str | None) -> tuple[str, Mapping[str, Any]]:
    dialect: Dialect = psycopg_dialect.dialect()  # type: ignore[no-untyped-call]
    statement: Any = insert(prefix=prefix)
    compiled = statement.compile(
        dialect=dialect,
        schema_translate_map={None: prefix} if prefix else None,
        render_schema_translate=prefix is not None,
    )
    return str(compiled), compiled.params
