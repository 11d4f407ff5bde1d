"""A worker's session: what it changes and the completion of its job are one transaction."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..clock import held_at
from ..enqueue.session_of import BIND
from ..errors import sqlstate
from ..statements.acknowledge import Ack, acknowledge, outcomes
from .attempt import Attempt
from .connecting import connecting
from .following import Followed, follow
from .kept_open import kept_open
from .outcome import success
from .time_limits import ANSWER_TIMEOUT, deadline

# How often a transaction is tried that others thwart: each time one of them got on.
TRIES = 5
# By SQLSTATE: a serialization failure, and a deadlock. Nothing of the transaction is left.
CONFLICTS = ("40001", "40P01")


class WorkerSessions(Protocol):
    """Where the sessions of workers come from: a `Database`, or the one connection of a test."""

    @property
    def schemas(self) -> Mapping[str, Any]: ...

    @property
    def prefix(self) -> str | None: ...

    async def fetch(
        self, statement: Executable, params: Mapping[str, Any] | None = None
    ) -> Sequence[Any]: ...

    isolation: str | None
    """The isolation level to ask for; `None` for that of the engine."""

    def worker_session(self) -> AsyncSession: ...


@dataclass(frozen=True, slots=True)
class Written:
    """An outcome that needs no acknowledgement any more."""

    ack: Ack
    applied: bool
    """Whether it was committed; else the job was somebody else's, and all was rolled back."""
    duration: float
    """Seconds that it took to write and to commit it."""
    followed: Followed = field(default_factory=Followed)
    """What followed from it in the same transaction."""


async def transact(
    attempt: Attempt, sessions: WorkerSessions, process: Callable[[AsyncSession], Awaitable[Any]]
) -> Any:
    """What `process` returns, or the `Written` outcome of that if it has used its session.

    It is called anew, with a new session, after a conflict with other transactions. Whatever it
    raises rolls its changes back.
    """
    tries = 0
    while True:
        tries += 1
        try:
            return await _try(attempt, sessions, process)
        except DBAPIError as error:
            if tries == TRIES or sqlstate(error) not in CONFLICTS:
                raise


async def transact_plainly(
    attempt: Attempt, sessions: WorkerSessions, process: Callable[[Session], Any]
) -> Any:
    """The same for a plain function."""
    return await transact(attempt, sessions, lambda session: session.run_sync(process))


async def _try(
    attempt: Attempt, sessions: WorkerSessions, process: Callable[[AsyncSession], Awaitable[Any]]
) -> Any:
    async with sessions.worker_session() as session, connecting(session):
        if sessions.isolation is not None:
            await session.connection(
                bind_arguments=BIND, execution_options={"isolation_level": sessions.isolation}
            )
        with kept_open(session.sync_session):
            result = await process(session)
        if not session.in_transaction():
            return result
        ack = success(attempt, result)
        started = time.monotonic()
        async with deadline(ANSWER_TIMEOUT):
            await session.flush()
            # Somebody gave it back, or rescued it: another attempt does it all again.
            followed = await session.run_sync(_write, ack, sessions)
            await (session.commit() if followed else session.rollback())
        applied, followed = followed is not None, followed or Followed()
        return Written(ack, applied, time.monotonic() - started, followed)


def _write(session: Session, ack: Ack, sessions: WorkerSessions) -> Followed | None:
    """Write an outcome; what follows from it, or `None` if it does not apply."""
    # A session that routes its statements may read elsewhere.
    connection = session.connection(bind_arguments=BIND)
    written = connection.execute(
        acknowledge(now=held_at()), outcomes([ack]), execution_options=sessions.schemas
    )
    if written.one_or_none() is None:
        return None
    return follow(connection, [ack.id], sessions.prefix) if ack.followed else Followed()
