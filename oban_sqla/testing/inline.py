"""`inline()`: run jobs as soon as their session has flushed them."""

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
    """During a block, run each job of any session as soon as it is flushed::

        with inline():
            await WelcomeEmail.enqueue({"email": "ann@shop.test"}, conn=session)
            await session.flush()  # runs the job; so do commit and autoflush

    A job runs at the end of the flush that inserts it, before a commit, on the session's
    connection, as in `drain_queue`. A step of a workflow runs after its deps. The worker sees all
    flushed data, and its changes belong to the transaction. Afterwards the session's instances are
    read again, as after `drain_queue`.

    Some jobs don't run here: scheduled jobs, retries, and jobs that were not enqueued in a session.
    Use `drain_queue` for these. Jobs that a worker enqueues in a session run at once, too.

    with_safety: whether to only record the errors of workers. Otherwise the flush raises the error,
        and its transaction fails.
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
        # The session refers weakly to jobs that are inserted, such as those of a workflow.
        self._new.setdefault(session, []).extend(self._others(session))
        # Jobs are inserted before the flush. If it has nothing else to do, `after_flush_postexec`
        # is never called.
        if not (session.new or session.dirty or session.deleted):
            self.run(session, flush_context)

    def _others(self, session: Session) -> list[Job]:
        """The jobs that were not pending before, and that the flush has inserted."""
        known = {*self._before.get(session, ()), *self._new.get(session, ())}
        return [job for job in inserted(session) if job not in known]

    def run(self, session: Session, flush_context: Any) -> None:
        others = self._others(session)
        self._before.pop(session, None)
        new = [*self._new.pop(session, ()), *others]
        jobs = [job for job in new if inspect(job).persistent and not job.conflict]
        if not jobs:
            return
        connection = session.connection(BIND)
        database = Joined(connection, kind_of(session))
        work = _run(Attempts(database, with_safety=self._with_safety), jobs)
        try:
            if connection.dialect.is_async:
                # A flush is sync; `run_async` awaits a coroutine on the connection's event loop.
                driver: Any = connection.connection.dbapi_connection
                driver.run_async(lambda _: work)
            else:
                run(work)
        finally:
            refresh(session)


async def _run(attempts: Attempts, jobs: list[Job]) -> None:
    waiting = [id for job in jobs if (id := identity(job)) is not None]
    before = 0
    # A job may have to wait for another one, such as a step of a workflow.
    while len(waiting) != before:
        before = len(waiting)
        waiting = [id for id in waiting if await attempts.run(id) is None]
