"""Detect that a worker's session got no connection, which is not a failure of the job."""

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session


class UnconnectedError(Exception):
    """The session of a worker got no connection. The cause is the original error."""


class CancelledUnconnected(asyncio.CancelledError):
    """The task was cancelled while the session of its worker waited for a connection."""


@asynccontextmanager
async def connecting(session: AsyncSession) -> AsyncIterator[None]:
    """Raise `UnconnectedError` for an error that the session raised while it got its connection.

    A `CancelledError` becomes `CancelledUnconnected`.
    """
    try:
        yield
    except BaseException as error:
        if not _came_up_in_pool(error, session.sync_session):
            raise
        if isinstance(error, asyncio.CancelledError):
            raise CancelledUnconnected from error
        raise UnconnectedError(f"{type(error).__name__}: {error}") from error


def _came_up_in_pool(error: BaseException, session: Session) -> bool:
    # A session connects at its first statement, so the error passes through the worker's code. The
    # frames of the traceback show whether this session raised it.
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        ours = False
        for frame, _ in traceback.walk_tb(link.__traceback__):
            module = frame.f_globals.get("__name__") or ""
            if module.startswith("sqlalchemy.orm"):
                ours = ours or frame.f_locals.get("self") is session
            elif ours and module.startswith("sqlalchemy.pool"):
                return True
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return False
