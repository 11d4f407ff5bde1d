"""Take the permits of a rate in the caller's transaction."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import psycopg
from sqlalchemy import Connection, Executable
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from ..enqueue.connections import execute
from ..enqueue.session_of import BIND, unscoped
from .lock import isolation, lock_rates
from .permits import take_permits

Transactional: TypeAlias = (
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
)
"""The sessions and connections whose transaction may take permits."""

EXACT = ("read committed", "read uncommitted")


async def take_joined(
    conn: Transactional, params: Mapping[str, Any], schemas: Mapping[str, Any]
) -> Any:
    """The row of `take_permits`. The lock lasts until the transaction ends, if permits were taken.

    `TypeError` for another `conn`; `ValueError` for a transaction that can't see the permits that
    others took.
    """
    joined = unscoped(conn)
    if isinstance(joined, AsyncSession):
        return await joined.run_sync(_of_session, params, schemas)
    if isinstance(joined, Session):
        return _of_session(joined, params, schemas)
    if isinstance(joined, AsyncConnection):
        return await joined.run_sync(_take, params, schemas)
    if isinstance(joined, Connection):
        return _take(joined, params, schemas)
    if isinstance(joined, psycopg.AsyncCursor | psycopg.Cursor):
        joined = joined.connection
    if isinstance(joined, psycopg.AsyncConnection | psycopg.Connection):
        return await _take_through(joined, params)
    raise TypeError(
        "conn must be an AsyncSession, async_scoped_session, Session, scoped_session,"
        " AsyncConnection or Connection of SQLAlchemy, or a connection or cursor of psycopg, whose"
        f" transaction takes the permits; got {type(conn).__module__}.{type(conn).__qualname__}"
    )


def _of_session(session: Session, params: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    return _take(session.connection(bind_arguments=BIND), params, schemas)


def _take(connection: Connection, params: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    _require_exact(connection.execute(isolation()).scalar_one())
    # The rollback of the savepoint releases the lock, so that nobody waits while the caller does.
    with connection.begin_nested() as savepoint:
        connection.execute(lock_rates(), params)
        row = connection.execute(take_permits(), params, execution_options=dict(schemas)).one()
        if not row.taken:
            savepoint.rollback()
    return row


async def _take_through(
    connection: psycopg.AsyncConnection | psycopg.Connection, params: Mapping[str, Any]
) -> Sequence[Any]:
    # This begins a transaction, if there is none: the savepoint must not be one.
    ((found,),) = await execute(connection, _isolation, {}, None)
    _require_exact(found)
    async with _savepoint(connection) as savepoint:
        await execute(connection, _lock_rates, {"home": params["home"]}, None)
        (row,) = await execute(connection, _take_permits, params, params["home"])
        if not row[0]:
            raise psycopg.Rollback(savepoint)
    return row


@asynccontextmanager
async def _savepoint(
    connection: psycopg.AsyncConnection | psycopg.Connection,
) -> AsyncIterator[psycopg.AsyncTransaction | psycopg.Transaction]:
    if isinstance(connection, psycopg.AsyncConnection):
        async with connection.transaction() as savepoint:
            yield savepoint
    else:
        with connection.transaction() as own:
            yield own


def _isolation(*, prefix: str | None) -> Executable:
    return isolation()


def _lock_rates(*, prefix: str | None) -> Executable:
    return lock_rates()


def _take_permits(*, prefix: str | None) -> Executable:
    return take_permits()


def _require_exact(found: str) -> None:
    if found not in EXACT:
        raise ValueError(
            f"permits can't be taken in a transaction that is {found}, since it does not see"
            " the permits that others take; use READ COMMITTED, or leave conn out"
        )
