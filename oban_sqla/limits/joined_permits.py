"""Take the permits of a rate in the caller's transaction."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from ..enqueue.session_of import BIND, unscoped
from .lock import lock_rates
from .permits import take_permits

Transactional: TypeAlias = (
    AsyncSession
    | async_scoped_session[AsyncSession]
    | Session
    | scoped_session[Session]
    | AsyncConnection
    | Connection
)
"""The sessions and connections whose transaction may take permits."""

EXACT = ("read committed", "read uncommitted")


async def take_joined(
    conn: Transactional, params: Mapping[str, Any], schemas: Mapping[str, Any]
) -> Any:
    """The row of `take_permits`. The lock lasts until the transaction ends, if permits were taken.

    `TypeError` for another `conn`; `ValueError` for a transaction that can't see what others took.
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
    raise TypeError(
        "conn must be an AsyncSession, async_scoped_session, Session, scoped_session,"
        " AsyncConnection or Connection of SQLAlchemy, whose transaction takes the permits; got"
        f" {type(conn).__module__}.{type(conn).__qualname__}"
    )


def _of_session(session: Session, params: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    return _take(session.connection(bind_arguments=BIND), params, schemas)


def _take(connection: Connection, params: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    # The rollback of the savepoint releases the lock, so that nobody waits while the caller does.
    with connection.begin_nested() as savepoint:
        isolation = connection.execute(lock_rates(), params).one().isolation
        if isolation not in EXACT:
            raise ValueError(
                f"permits can't be taken in a transaction that is {isolation}, since it does not"
                " see the permits that others take; use READ COMMITTED, or leave conn out"
            )
        row = connection.execute(take_permits(), params, execution_options=dict(schemas)).one()
        if not row.taken:
            savepoint.rollback()
    return row
