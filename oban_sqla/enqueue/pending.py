"""A session's pending jobs: its flush inserts them all with the one statement, before its own work.

Other rows may refer to jobs, and none has to be there before a job. After that the jobs are
persistent, as those are that SQLAlchemy inserted, and a rollback makes them transient again. What a
new job can't hold, such as an attempt, and jobs whose mapper events others listen to, are left to
the unit of work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from weakref import ref

from sqlalchemy import Connection
from sqlalchemy.orm import Session, SessionTransaction, make_transient

from ..models import Job
from ..models.state import NEW
from ..statements.insert import FIELDS
from .connections import UNSET, Batch, execute_core, fill
from .savepoints import Noted

_inserted = Noted[ref[Job]]("oban_sqla_inserted")
_GIVEN = frozenset(FIELDS)
_NOT_GIVEN = ("inserted_at", *UNSET)


def pending(session: Session, objects: Iterable[object] | None) -> list[Job]:
    """The pending jobs of a flush; only those among `objects`, if given."""
    jobs = [job for job in session.new if isinstance(job, Job)]
    if jobs and objects:
        chosen = {id(one) for one in objects}
        jobs = [job for job in jobs if id(job) in chosen]
    return jobs


def are_plain(session: Session, jobs: Iterable[Job]) -> bool:
    """Whether the one statement can insert all these pending jobs."""
    return all(map(_is_plain, jobs)) and not _others_listen(session)


def insert_pending(session: Session, connection: Connection, batches: Iterable[Batch]) -> None:
    """Insert pending jobs of a session, and make them persistent."""
    for batch, text in batches:
        rows = execute_core(connection, text, None)
        for job in batch:
            if job in session:
                session.expunge(job)
        fill(batch, rows)
        session.add_all(batch)
        _inserted.add(session, map(ref, batch))


def inserted(session: Session) -> Iterator[Job]:
    """The jobs that the one statement has inserted in the session's transaction."""
    for reference in _inserted.all(session):
        if (job := reference()) is not None:
            yield job


def forget_inserted(session: Session) -> None:
    """When a transaction is rolled back, make the jobs it inserted transient again, as they were.

    To be called by `after_rollback`: later they would have expired.
    """
    for reference in _inserted.undone(session):
        job = reference()
        if job is not None and job in session:
            make_transient(job)
            for field in ("id", *_NOT_GIVEN):
                vars(job).pop(field, None)


def end_transaction(session: Session, transaction: SessionTransaction) -> None:
    """When a savepoint is released, what it inserted belongs to the transaction around it."""
    _inserted.end(session, transaction)


def _is_plain(job: Job) -> bool:
    values = vars(job)
    return (
        type(job) is Job
        and values.keys() >= _GIVEN
        and values.keys().isdisjoint(_NOT_GIVEN)
        and values["state"] in NEW
        and not (values.get("attempt") or values.get("errors") or values.get("attempted_by"))
    )


def _others_listen(session: Session) -> bool:
    # A sharded session has to be asked for each job; a mapper event of ours is there for each.
    events = Job.__mapper__.dispatch
    listened = len(events.before_insert) > 1 or len(events.after_insert) > 1
    return listened or session.connection_callable is not None
