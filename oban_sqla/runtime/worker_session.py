"""Run a worker with a session: its changes and the job's completion are one transaction."""

import asyncio
import random
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

# The most tries of a transaction that conflicts with other transactions.
TRIES = 5
# The longest pause, in seconds, before the second try. It doubles with each try.
PAUSE = 0.01
# SQLSTATEs: a serialization failure and a deadlock. Both roll the transaction back.
CONFLICTS = ("40001", "40P01")


class WorkerSessions(Protocol):
    """The source of workers' sessions: a `Database`, or the connection of a test."""

    @property
    def schemas(self) -> Mapping[str, Any]: ...

    @property
    def prefix(self) -> str | None: ...

    async def fetch(
        self, statement: Executable, params: Mapping[str, Any] | None = None
    ) -> Sequence[Any]: ...

    isolation: str | None
    """The isolation level to set; `None` for that of the engine."""

    def worker_session(self) -> AsyncSession: ...


@dataclass(frozen=True, slots=True)
class Written:
    """An outcome that a worker's own transaction has written."""

    ack: Ack
    applied: bool
    """Whether it was committed. If the fence did not hold, everything was rolled back."""
    duration: float
    """Seconds for writing and committing it."""
    followed: Followed = field(default_factory=Followed)
    """The results of following the outcome in the same transaction."""


async def transact(
    attempt: Attempt, sessions: WorkerSessions, process: Callable[[AsyncSession], Awaitable[Any]]
) -> Any:
    """Call `process` with a session. Returns its result, or `Written` if it used the session.

    After a conflict with other transactions, `process` is called again with a new session. An error
    of `process` rolls its changes back.
    """
    tries = 0
    while True:
        tries += 1
        try:
            return await _try(attempt, sessions, process)
        except DBAPIError as error:
            if tries == TRIES or sqlstate(error) not in CONFLICTS:
                raise
        # Of transactions that meet again at once, one fails again.
        await asyncio.sleep(random.uniform(0, PAUSE * 2 ** (tries - 1)))


async def transact_plainly(
    attempt: Attempt, sessions: WorkerSessions, process: Callable[[Session], Any]
) -> Any:
    """`transact` for a sync function."""
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
            # If the outcome does not apply, the job was given back or rescued. Everything is rolled
            # back, and another attempt does the work again.
            followed = await session.run_sync(_write, ack, sessions)
            await (session.commit() if followed else session.rollback())
        applied, followed = followed is not None, followed or Followed()
        return Written(ack, applied, time.monotonic() - started, followed)


def _write(session: Session, ack: Ack, sessions: WorkerSessions) -> Followed | None:
    """Write an outcome and follow it. Returns `None` if the outcome does not apply."""
    # BIND, since a session may route its reads to another database.
    connection = session.connection(bind_arguments=BIND)
    written = connection.execute(
        acknowledge(now=held_at()), outcomes([ack]), execution_options=sessions.schemas
    )
    if written.one_or_none() is None:
        return None
    return follow(connection, [ack.id], sessions.prefix) if ack.followed else Followed()
