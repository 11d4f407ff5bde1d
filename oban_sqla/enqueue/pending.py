"""The pending jobs of a session: one statement inserts them all, before the flush does its work.

Jobs come first, since other rows may refer to jobs, but jobs refer to no row. Inserted jobs are
persistent, as if SQLAlchemy had inserted them, and a rollback makes them transient again. Some jobs
are left to the unit of work: jobs with values that a new job can't have, such as an attempt, and
all jobs if other code listens to the mapper events of `Job`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from weakref import ref

from sqlalchemy import inspect
from sqlalchemy.orm import (
    Mapper,
    RelationshipProperty,
    Session,
    SessionTransaction,
)
from sqlalchemy.orm.attributes import instance_state, set_committed_value
from sqlalchemy.orm.collections import collection_adapter

from ..models import Job
from ..models.instrumentation import inserts_are_heard, routes_by_row, values_of
from ..models.job import COLUMNS, UNSET
from ..models.state import NEW
from ..models.unique_job import may_hold_key, restore
from ..statements.insert import FIELDS
from .from_rows import fill_pending, make_new
from .savepoints import SavepointLog

_inserted = SavepointLog[ref[Job]]("oban_sqla_inserted")
_GIVEN = frozenset(FIELDS)
_NOT_HELD = ("dynamic", "write_only")
_NOT_GIVEN = ("inserted_at", *UNSET)


def pending(session: Session, objects: Iterable[object] | None) -> list[Job]:
    """The pending jobs of a flush, restricted to `objects` if given."""
    jobs = [job for job in session.new if isinstance(job, Job)]
    if jobs and objects:
        chosen = {id(one) for one in objects}
        jobs = [job for job in jobs if id(job) in chosen]
    return jobs


def are_plain(session: Session, jobs: Iterable[Job]) -> bool:
    """Whether one statement can insert all these pending jobs."""
    return all(map(_is_plain, jobs)) and not _others_listen(session)


def unique_jobs(jobs: Iterable[Job]) -> list[Job]:
    """The jobs that may hold a unique key. The unit of work would fail for a duplicate."""
    return [job for job in jobs if may_hold_key(job) and _is_plain(job)]


def changes_jobs(session: Session, objects: Iterable[object] | None) -> bool:
    """Whether a flush changes or deletes existing jobs."""
    chosen = {id(one) for one in objects or ()}
    return any(
        isinstance(one, Job) and (not chosen or id(one) in chosen)
        for one in (*session.dirty, *session.deleted)
    )


def to_jobs(mapper: Mapper[Any]) -> Iterator[RelationshipProperty[Any]]:
    """The relationships of a mapper by which its instances may refer to jobs."""
    for relationship in mapper.relationships:
        if issubclass(relationship.mapper.class_, Job) and not relationship.viewonly:
            yield relationship


def make_persistent(session: Session, jobs: Sequence[Job], rows: Sequence[Sequence[Any]]) -> None:
    """Make inserted jobs persistent in a session, as after a flush."""
    session.add_all(job for job in jobs if job not in session)
    fill_pending(rows, jobs, session)
    _inserted.add(session, map(ref, jobs))


def inserted(session: Session) -> Iterator[Job]:
    """The jobs that were inserted here in the session's transaction."""
    for reference in _inserted.all(session):
        if (job := reference()) is not None and not job.conflict:
            yield job


def add_unique(session: Session, jobs: Sequence[Job]) -> None:
    """Add unique jobs to a session, after they were inserted or became existing jobs.

    The session may already hold an instance of the existing job. Then that instance gets the values
    of the row, objects that refer to the duplicate refer to that instance instead, and the
    duplicate is detached.
    """
    session.add_all(job for job in jobs if not job.conflict)
    held = {job: _add_duplicate(session, job) for job in jobs if job.conflict}
    _refer(session, {job: there for job, there in held.items() if there is not job})
    _inserted.add(session, map(ref, jobs))


def take_out(session: Session, jobs: Iterable[Job]) -> None:
    """Expunge jobs from their session, so that its flush does not insert them."""
    for job in jobs:
        if job in session:
            session.expunge(job)


def _add_duplicate(session: Session, job: Job) -> Job:
    """Add a duplicate to the session, or return the session's instance of the existing job."""
    key = inspect(job).key
    held: Job | None = None if key is None else session.identity_map.get(key)
    if held is None:
        session.add(job)
        return job
    unchanged = inspect(held).unmodified
    for column in COLUMNS:
        if column in unchanged:
            set_committed_value(held, column, values_of(job)[column])
    return held


def _refer(session: Session, held: Mapping[Job, Job]) -> None:
    """Let objects of the flush refer to the session's instances instead of their duplicates."""
    if not held:
        return
    for instance in (*session.new, *session.dirty):
        state = inspect(instance)
        for relationship in to_jobs(state.mapper):
            value = state.dict.get(relationship.key)
            if isinstance(value, Job):
                if value in held:
                    setattr(instance, relationship.key, held[value])
            elif value and relationship.lazy not in _NOT_HELD:
                adapter = collection_adapter(value)
                for job in [job for job in adapter if job in held]:
                    adapter.remove_with_event(job)
                    if held[job] not in [*adapter]:
                        adapter.append_with_event(held[job])


def forget_inserted(session: Session) -> None:
    """Make jobs transient again after a rollback of their transaction.

    A listener of `after_rollback`, since the jobs expire after that event.
    """
    for reference in _inserted.undone(session):
        job = reference()
        if job is None:
            continue
        if job.conflict:
            restore(job)
        elif instance_state(job).session in (session, None):
            make_new(job)


def keep_inserted(session: Session, transaction: SessionTransaction) -> None:
    """Move the jobs of a released savepoint to the transaction around it."""
    _inserted.end(session, transaction)


def _is_plain(job: Job) -> bool:
    values = values_of(job)
    return (
        type(job) is Job
        and values.keys() >= _GIVEN
        and values.keys().isdisjoint(_NOT_GIVEN)
        and values["state"] in NEW
        and not (values.get("attempt") or values.get("errors") or values.get("attempted_by"))
    )


def _others_listen(session: Session) -> bool:
    # Each of the two events has one listener of ours.
    return inserts_are_heard(Job, own=1) or routes_by_row(session)
