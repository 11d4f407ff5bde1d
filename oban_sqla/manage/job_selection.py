"""`JobSelection`: the arguments `which` and `conn` of the methods that manage jobs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Select, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession, async_session
from sqlalchemy.orm import Session

from ..enqueue.session_of import BIND, unscoped
from ..models import Job, JobState
from ..models.job_id import ids_of, job_or_id
from .lock import again, load, lock

Which: TypeAlias = Job | int | Iterable[Job | int] | Select[Any]
"""A job, an id, an iterable of jobs and ids, or `select(Job).where(...)`."""


@dataclass(frozen=True, slots=True)
class JobSelection:
    """The selected jobs, before any query."""

    given: Sequence[Job | int] = ()
    statement: Select[Any] | None = None

    @classmethod
    def of(cls, which: object) -> "JobSelection":
        """Check `which`; `TypeError` for another type, `ValueError` for an invalid id."""
        if isinstance(which, Select):
            return cls(statement=_of_jobs(which))
        if isinstance(which, Iterable) and not isinstance(which, str | bytes | Mapping):
            return cls([job_or_id(one) for one in which])
        return cls([job_or_id(which)])

    def ids(self, session: Session, states: Sequence[JobState]) -> list[int]:
        """The ids, each once. Jobs that a SELECT finds are locked, and in one of the states.

        `ValueError` for a job without an id.
        """
        _flush(session)
        if self.statement is None:
            return ids_of(self.given)
        if not (ids := _lock(session, self.statement, states)):
            return []
        found = select(again(self.statement, ids).subquery().c.id)
        return list(dict.fromkeys(session.scalars(found, bind_arguments=BIND)))

    def load(self, session: Session) -> list[Job]:
        """Lock and load the existing jobs, in the given order."""
        _flush(session)
        fresh = {"populate_existing": True}
        if self.statement is None:
            given = ids_of(self.given)
            jobs = session.scalars(load(given), execution_options=fresh, bind_arguments=BIND)
            by_id = {job.id: job for job in jobs}
            return [by_id[id] for id in given if id in by_id]
        if not (ids := _lock(session, self.statement, tuple(JobState))):
            return []
        statement = again(self.statement, ids)
        jobs = session.scalars(statement, execution_options=fresh, bind_arguments=BIND)
        return list(jobs.unique())


def unit_of_work(conn: object) -> AsyncSession | Session:
    """The session that `conn` is or refers to; `TypeError` for anything else."""
    session = unscoped(conn)
    if isinstance(session, Session):
        # The sync session inside an AsyncSession can't be used without it.
        return async_session(session) or session
    if isinstance(session, AsyncSession):
        return session
    raise TypeError(
        "conn must be an AsyncSession, async_scoped_session, Session or scoped_session, whose"
        f" transaction is joined; got {type(conn).__module__}.{type(conn).__qualname__}."
        " Without conn the jobs are changed in a transaction of their own"
    )


def _flush(session: Session) -> None:
    # As before any query of the session. The flush also gives new jobs their ids.
    if session.autoflush:
        session.flush()


def _lock(session: Session, statement: Select[Any], states: Sequence[JobState]) -> Sequence[int]:
    return session.scalars(lock(statement, *states), bind_arguments=BIND).all()


def _of_jobs(statement: Select[Any]) -> Select[Any]:
    described = statement.column_descriptions
    entity = described[0].get("entity") if len(described) == 1 else None
    if entity is None or described[0]["expr"] is not entity or not _is_job(entity):
        names = ", ".join(str(one["name"]) for one in described)
        raise TypeError(f"the SELECT must be of Job only, select(Job).where(...), not of {names}")
    return statement


def _is_job(entity: Any) -> bool:
    return bool(inspect(entity).mapper.isa(Job.__mapper__))
