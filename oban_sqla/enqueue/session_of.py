"""Find the session of a `conn`, and the bind by which a session finds the jobs."""

from typing import TypeAlias

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from ..models import Job

UnitOfWork: TypeAlias = (
    AsyncSession | async_scoped_session[AsyncSession] | Session | scoped_session[Session]
)
"""The sessions whose transaction a change of jobs may join."""

BIND = {"mapper": Job.__mapper__, "clause": update(Job)}
"""The arguments with which a session with several databases chooses the one to write jobs to."""


def unscoped(conn: object) -> object:
    """The current session of a scoped session. Other objects are returned unchanged."""
    return conn() if isinstance(conn, async_scoped_session | scoped_session) else conn


def session_of(conn: object) -> Session | None:
    """The sync session of a `conn`, whose flush inserts the jobs; `None` for another `conn`."""
    session = unscoped(conn)
    if isinstance(session, AsyncSession):
        return session.sync_session
    return session if isinstance(session, Session) else None
