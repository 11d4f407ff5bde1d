"""`JobManagement`, a part of `Oban`: cancel, retry, delete and update stored jobs."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Executable, Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..enqueue.news import announce_moved
from ..enqueue.session_of import BIND, UnitOfWork
from ..errors import JobNotFoundError
from ..models import Job, JobState
from ..models.job_id import identity
from ..models.state import STAGEABLE
from ..runtime.database import Database
from ..runtime.following import follow
from ..runtime.service import Emit
from ..statements.update import update, update_parameters
from ..wakeups import Wakeup
from .cancel import CANCELLABLE, cancel
from .delete import DELETABLE, delete
from .job_selection import JobSelection, Which, unit_of_work
from .job_update import Changes, check
from .later_events import emit_after_commit
from .lock import load
from .retry import RETRYABLE, retry

T = TypeVar("T")

# The most changes of single jobs in one statement.
MOST_CHANGES = 10_000


class JobManagement:
    """Manage stored jobs, through an `Oban` that need not be started.

    `which` is a `Job`, an id, an iterable of jobs and ids, or `select(Job).where(...)`, which may
    have joins, an order and a limit. Jobs that do not exist, or are in another state than the
    method needs, are skipped. The conditions of a SELECT are checked again after a job is locked.

    With a session as `conn`, the changes belong to its transaction. The session's own `Job`
    instances have the new values afterwards. Other instances, also instances that you pass, stay
    unchanged. Without `conn`, a method uses its own transaction. Jobs are locked in the order of
    their ids.

    `TypeError` or `ValueError` for an invalid `which` or `conn`, and for a job without an id, which
    was not enqueued. Nothing is sent then.
    """

    _database: Database
    _emit: Emit

    async def cancel_jobs(self, which: Which, *, conn: UnitOfWork | None = None) -> int:
        """Cancel unfinished jobs, and return their number.

        Waiting jobs are `cancelled` at once. Running jobs stay `executing` and are told to stop:
        their `job.cancelled()` turns true, and the task of an `interruptible` worker is cancelled.
        A running job may still complete; if it fails or snoozes, it is `cancelled`.
        """
        return await self._manage(which, conn, partial(_cancel, self._emit))

    async def retry_jobs(self, which: Which, *, conn: UnitOfWork | None = None) -> int:
        """Make jobs available now, and return their number. Skips available and executing jobs.

        If a job has no attempt left, its `max_attempts` grows by one.
        """
        return await self._manage(which, conn, partial(_retry, self._emit))

    async def delete_jobs(self, which: Which, *, conn: UnitOfWork | None = None) -> int:
        """Delete jobs, and return their number. Skips executing jobs."""
        return await self._manage(which, conn, partial(_delete, self._emit))

    async def update_jobs(
        self, which: Which, changes: Changes, *, conn: UnitOfWork | None = None
    ) -> list[Job]:
        """Change fields of jobs, and return these jobs in the given order.

        changes: a mapping of fields to values, or a function that returns a mapping for a job. The
            fields are args, max_attempts, meta, priority, queue, scheduled_at, schedule_in (seconds
            or a `timedelta`), tags and worker (a name, a worker class or a job function).

        A new time moves an available job to `scheduled`, or a scheduled job to `available`, by the
        database's clock. If a job runs, only its row changes: its worker keeps the old values.

        `TypeError` for a field that can't be changed. `ValueError` or `TypeError` for an invalid
        value, and for `max_attempts` below the attempts of a job. Nothing is changed then.
        """
        changed = changes if callable(changes) else check(changes)
        return await self._manage(
            which, conn, lambda session, chosen: _update(session, chosen, changed)
        )

    async def get_job(self, id: int, *, conn: UnitOfWork | None = None) -> Job | None:
        """The job with that id; `None` if there is none."""
        return await self._manage(id, conn, _get)

    async def get_one_job(self, id: int, *, conn: UnitOfWork | None = None) -> Job:
        """The job with that id; `JobNotFoundError` if there is none."""
        job = await self.get_job(id, conn=conn)
        if job is None:
            raise JobNotFoundError(f"there is no job {id}; get_job() returns None instead")
        return job

    async def _manage(
        self, which: Which, conn: UnitOfWork | None, work: Callable[[Session, JobSelection], T]
    ) -> T:
        chosen = JobSelection.of(which)
        if conn is None:
            async with self._database.session() as own:
                return await own.run_sync(work, chosen)
        session = unit_of_work(conn)
        if isinstance(session, AsyncSession):
            return await session.run_sync(work, chosen)
        return work(session, chosen)


def _cancel(emit: Emit, session: Session, chosen: JobSelection) -> int:
    rows = _execute(session, cancel(), chosen.ids(session, CANCELLABLE))
    running = [row.id for row in rows if row.state is JobState.EXECUTING]
    announce_moved(session, cancelled=running)
    _follow(emit, session, rows)
    return len(rows)


def _retry(emit: Emit, session: Session, chosen: JobSelection) -> int:
    rows = _execute(session, retry(), chosen.ids(session, RETRYABLE))
    announce_moved(session, Wakeup(frozenset(row.queue for row in rows)))
    _follow(emit, session, rows, reopened=True)
    return len(rows)


def _follow(
    emit: Emit, session: Session, rows: Sequence[Row[Any]], *, reopened: bool = False
) -> None:
    """Let features follow the changes in the same transaction, if they concern these jobs."""
    if ids := [row.id for row in rows if row.followed]:
        connection = session.connection(BIND)
        schemas = connection.get_execution_options().get("schema_translate_map") or {}
        followed = follow(connection, ids, schemas.get(None), reopened=reopened)
        announce_moved(session, followed.wakeup)
        emit_after_commit(session, connection, emit, followed.events)
        _refresh(session, followed.ended)


def _delete(emit: Emit, session: Session, chosen: JobSelection) -> int:
    ids = chosen.ids(session, DELETABLE)
    if not ids:
        return 0
    # Through the session, which removes its own instances, and restores them after a rollback.
    result = session.execute(
        delete(),
        {"ids": ids},
        execution_options={"synchronize_session": "fetch"},
        bind_arguments=BIND,
    )
    rows = result.all()
    _follow(emit, session, rows)
    return len(rows)


def _update(
    session: Session,
    chosen: JobSelection,
    changes: Mapping[str, Any] | Callable[[Job], Mapping[str, Any]],
) -> list[Job]:
    jobs = chosen.load(session)
    rows: list[Row[Any]] = []
    for fields, changed in _grouped(jobs, changes).items():
        for start in range(0, len(changed), MOST_CHANGES):
            given = update_parameters(changed[start : start + MOST_CHANGES])
            rows += session.connection(BIND).execute(update(fields), given)
    _refresh(session, [row.id for row in rows])
    available = frozenset(row.queue for row in rows if row.state is JobState.AVAILABLE)
    waiting = (row.scheduled_at for row in rows if row.state in STAGEABLE)
    # A limit may count a running job no more, in its new queue or with its new arguments.
    freed = any(row.state is JobState.EXECUTING for row in rows)
    announce_moved(session, Wakeup(available, min(waiting, default=None)), freed=freed)
    return jobs


def _grouped(
    jobs: Sequence[Job], changes: Mapping[str, Any] | Callable[[Job], Mapping[str, Any]]
) -> dict[frozenset[str], list[tuple[list[int], Mapping[str, Any]]]]:
    """Group the changes by their fields. All changes are checked before any is made."""
    groups = defaultdict(list)
    if not callable(changes):
        for job in jobs:
            _check_attempts(job.id, job.attempt, changes)
        groups[frozenset(changes)].append(([job.id for job in jobs], changes))
    else:
        for job in jobs:
            id, attempt = job.id, job.attempt
            own = check(changes(job))
            _check_attempts(id, attempt, own)
            groups[frozenset(own)].append(([id], own))
    groups.pop(frozenset(), None)
    return groups if jobs else {}


def _check_attempts(id: int, attempt: int, changes: Mapping[str, Any]) -> None:
    if changes.get("max_attempts", attempt) < attempt:
        raise ValueError(
            f"max_attempts {changes['max_attempts']} is less than the {attempt} attempts that job"
            f" {id} has had"
        )


def _get(session: Session, chosen: JobSelection) -> Job | None:
    return session.get(Job, chosen.ids(session, ())[0], bind_arguments=BIND)


def _execute(session: Session, statement: Executable, ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Execute a statement on the session's connection, and refresh the session's jobs."""
    if not ids:
        return []
    rows = session.connection(BIND).execute(statement, {"ids": ids}).all()
    _refresh(session, [row.id for row in rows])
    return rows


def _refresh(session: Session, ids: Sequence[int]) -> None:
    changed = set(ids)
    # Keeps references to the instances: garbage-collected ones would be loaded again in vain.
    held = [one for one in session.identity_map.values() if isinstance(one, Job)]
    known = [id for one in held if (id := identity(one)) is not None]
    if stale := changed.intersection(known):
        fresh = {"populate_existing": True, "autoflush": False}
        session.scalars(load([*stale]), execution_options=fresh, bind_arguments=BIND).all()
