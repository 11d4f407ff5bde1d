"""The session that a `conn` is or stands for, and where a session finds the jobs."""

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from ..models import Job

BIND = {"mapper": Job.__mapper__, "clause": update(Job)}
"""Where a session with several databases finds the jobs, and may write."""


def unscoped(conn: object) -> object:
    """The session that a scoped one stands for here; anything else as it is."""
    return conn() if isinstance(conn, async_scoped_session | scoped_session) else conn


def session_of(conn: object) -> Session | None:
    """The session whose flush inserts the jobs; `None` for another `conn`."""
    session = unscoped(conn)
    if isinstance(session, AsyncSession):
        return session.sync_session
    return session if isinstance(session, Session) else None
