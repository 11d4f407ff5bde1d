"""`inline()`: jobs run as soon as their session has flushed them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session

from ..enqueue.pending import inserted
from ..enqueue.session_of import BIND
from ..models import Job
from ..models.job_id import identity
from .attempts import Attempts
from .joined import Joined, kind_of, run
from .refresh import refresh


@contextmanager
def inline(*, with_safety: bool = False) -> Iterator[None]:
    """Run each job of any session at once, for a block::

        with inline():
            await WelcomeEmail.enqueue({"email": "ann@shop.test"}, conn=session)
            await session.flush()  # runs it; commit and autoflush do as well

    A job runs at the end of the flush that inserts it, before a commit, on the session's
    connection, as in `drain_queue`. So the worker sees everything that was flushed, and its changes
    belong to the transaction. Afterwards the session sees the database's values, as after
    `drain_queue`.

    Jobs that are scheduled for later wait, as do retries, and jobs that are not enqueued in a
    session: drain those. What jobs enqueue in sessions runs at once, too.

    with_safety: whether to only record what a worker raises. Otherwise the flush fails with it, and
        so does the transaction.
    """
    mode = _Inline(with_safety)
    listeners: tuple[tuple[str, Callable[..., None], dict[str, bool]], ...] = (
        ("before_flush", mode.note, {"insert": True}),
        ("before_flush", mode.run_if_nothing_else_is_flushed, {}),
        ("after_flush_postexec", mode.run, {}),
    )
    for name, listener, options in listeners:
        event.listen(Session, name, listener, **options)
    try:
        yield
    finally:
        for name, listener, _ in listeners:
            event.remove(Session, name, listener)


class _Inline:
    """The listeners, and the jobs that sessions are about to insert."""

    def __init__(self, with_safety: bool) -> None:
        self._with_safety = with_safety
        self._new: WeakKeyDictionary[Session, list[Job]] = WeakKeyDictionary()
        self._before: WeakKeyDictionary[Session, WeakSet[Job]] = WeakKeyDictionary()

    def note(self, session: Session, flush_context: Any, instances: Any) -> None:
        self._new[session] = [new for new in session.new if isinstance(new, Job)]
        self._before[session] = WeakSet(inserted(session))

    def run_if_nothing_else_is_flushed(
        self, session: Session, flush_context: Any, instances: Any
    ) -> None:
        # Jobs may be inserted before the flush, which then has nothing to do, and no end.
        if not (session.new or session.dirty or session.deleted):
            self.run(session, flush_context)

    def run(self, session: Session, flush_context: Any) -> None:
        new = self._new.pop(session, ())
        jobs = [job for job in new if inspect(job).persistent and not job.conflict]
        # Those that a change of this flush has enqueued were not pending before.
        known = {*self._before.pop(session, ()), *jobs}
        jobs += [job for job in inserted(session) if job not in known]
        if not jobs:
            return
        connection = session.connection(BIND)
        database = Joined(connection, kind_of(session))
        work = _run(Attempts(database, with_safety=self._with_safety), jobs)
        try:
            if connection.dialect.is_async:
                # The way out of a flush, for what has to be awaited on the connection's event loop.
                driver: Any = connection.connection.dbapi_connection
                driver.run_async(lambda _: work)
            else:
                run(work)
        finally:
            refresh(session)


async def _run(attempts: Attempts, jobs: list[Job]) -> None:
    for id in [identity(job) for job in jobs]:
        assert id is not None
        await attempts.run(id)
