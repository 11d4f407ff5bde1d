"""The session events: a flush inserts the pending jobs of its session with one statement.

The statement comes before the other work of the flush. Jobs that wait for the key of a row come
after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, event, inspect
from sqlalchemy.orm import Session, SessionTransaction, object_session

from ..errors import ObanError
from ..models import Job
from ..models.instrumentation import values_of
from ..models.unique_job import may_hold_key
from ..statements.execute import execute_core
from ..statements.insert import check_json
from . import encoding, news, observed, pending, references
from .batch import MOST_UNIQUE, Batch, encoded, wakeup
from .connections import insert_unique_core
from .from_rows import fill_from
from .session_of import BIND
from .unique import apart


def attach() -> None:
    """Attach the listeners to all sessions. Importing `oban_sqla` calls this."""
    for target, name, listener, options in _LISTENERS:
        if not event.contains(target, name, listener):
            event.listen(target, name, listener, **options)


def detach() -> None:
    """Detach the listeners. Then only polls find the jobs of sessions."""
    for target, name, listener, _ in _LISTENERS:
        if event.contains(target, name, listener):
            event.remove(target, name, listener)


def insert_pending(session: Session, flush_context: Any, objects: Iterable[object] | None) -> None:
    """Insert and announce the pending jobs that don't need the unit of work.

    Jobs that wait for a key in their arguments are held back until the flush has done its work.
    """
    references.take_back(session)
    if jobs := pending.pending(session, objects):
        with observed.flushing(session, jobs):
            _insert_pending(session, jobs, objects)


def _insert_pending(session: Session, jobs: list[Job], objects: Iterable[object] | None) -> None:
    if unique := pending.unique_jobs(jobs):
        _insert_unique(session, unique, objects)
        done = set(map(id, unique))
        jobs = [job for job in jobs if id(job) not in done]
    waiting = references.waiting(session, jobs)
    # All jobs or none, so that their ids are in the order in which they were added.
    if not jobs or not pending.are_plain(session, jobs):
        return
    if waiting:
        if not references.may_wait(session, waiting):
            return
        held = set(map(id, waiting))
        jobs = [job for job in jobs if id(job) not in held]
    try:
        batches = list(encoded(jobs))
    except (TypeError, ValueError):
        # The unit of work raises the error and rolls back, as for any object.
        return
    references.hold(session, waiting)
    _insert(session, batches)


def insert_held(session: Session, flush_context: Any) -> None:
    """Insert the jobs that were held back, since the keys of their instances are known now."""
    if held := references.release(session):
        _insert_apart(session, held)
    references.complete_arguments(session)
    observed.flushed(session)


def insert_now(session: Session, jobs: Sequence[Job]) -> None:
    """Insert and announce jobs in the session's transaction now, and make them persistent.

    `ValueError` or `TypeError` for values that can't be stored.
    """
    with observed.observed(jobs):
        _insert_apart(session, jobs)


def _insert_apart(session: Session, jobs: Sequence[Job]) -> None:
    plain, unique = apart(jobs)
    _insert(session, list(encoded(plain)), list(encoded(unique, MOST_UNIQUE)))


def _insert(session: Session, plain: Sequence[Batch], unique: Sequence[Batch] = ()) -> None:
    if plain or unique:
        connection = session.connection(bind_arguments=BIND)
        encoding.refuse_unstorable(connection, (*plain, *unique))
        for batch in plain:
            rows = execute_core(connection, batch.make, batch.parameters, None)
            pending.make_persistent(session, batch.jobs, rows)
            news.add(session, connection, batch.wakeup)
        for batch in unique:
            pending.take_out(session, batch.jobs)
            insert_unique_core(connection, batch.jobs)
            pending.add_unique(session, batch.jobs)
            news.add(session, connection, wakeup(batch.jobs))


def insert_outside(session: Session, jobs: Sequence[Job]) -> None:
    """Insert and announce jobs in the session's transaction now. The session does not hold them.

    `ValueError` or `TypeError` for values that can't be stored.
    """
    if session.autoflush:
        session.flush()
    references.refuse_without_key(jobs)
    with observed.observed(jobs):
        plain, unique = apart(jobs)
        batches = list(encoded(plain))
        connection = session.connection(bind_arguments=BIND)
        encoding.refuse_unstorable(connection, batches)
        for batch in batches:
            rows = execute_core(connection, batch.make, batch.parameters, None)
            fill_from(rows, batch.jobs)
        if unique:
            insert_unique_core(connection, unique)
    news.add(session, connection, wakeup(jobs))


def _insert_unique(session: Session, jobs: Sequence[Job], objects: Iterable[object] | None) -> None:
    # A job may conflict with an existing job that the flush deletes or ends.
    changed = pending.changes_jobs(session, objects)
    later = jobs if changed else references.waiting(session, jobs)
    if later and not references.may_wait(session, later):
        raise ObanError(
            f"{later[0]!r} is unique and has to wait for rows of this flush, but other rows of the"
            " flush may refer to jobs: flush before you enqueue the job"
        )
    behind = set(map(id, later))
    _insert_apart(session, [job for job in jobs if id(job) not in behind])
    references.hold(session, later)


def renew(mapper: Any, connection: Connection, job: Job) -> None:
    """Remove the id that a job has from a rolled-back transaction, so that it gets a new one.

    `ValueError` or `TypeError` if its args or meta were changed in place, and can't be stored.
    """
    if may_hold_key(job):
        raise ObanError(
            f"{job!r} is unique, but was added while a flush ran, or has values that no new job"
            " has: make a job with new(), and add it before the flush begins, or in after_flush"
        )
    session = object_session(job)
    assert session is not None
    observed.late(session, job)
    check_json(values_of(job))
    references.note_incomplete(connection, job)
    # The column is GENERATED ALWAYS, so an INSERT with an id would break the transaction.
    values_of(job).pop("id", None)


def note_new_arguments(mapper: Any, connection: Connection, job: Job) -> None:
    """Note an updated job whose new arguments refer to an instance without a key."""
    if inspect(job).attrs.args.history.has_changes():
        references.note_incomplete(connection, job)


def drop_flush(session: Session, transaction: SessionTransaction) -> None:
    """Drop the notes of a failed flush, after a rollback or a rollback to a savepoint."""
    news.forget_flushed(session)
    references.forget_held(session)
    observed.undone(session)


def end_transaction(session: Session, transaction: SessionTransaction) -> None:
    """Drop or move notes at the end of a savepoint or of the root transaction."""
    pending.keep_inserted(session, transaction)
    if transaction.parent is None:
        news.forget_all(session)
        observed.undone(session)


_LISTENERS: tuple[tuple[Any, str, Callable[..., Any], dict[str, bool]], ...] = (
    (Session, "before_flush", insert_pending, {}),
    (Job, "before_insert", renew, {"propagate": True}),
    (Job, "before_update", note_new_arguments, {"propagate": True}),
    (Job, "after_insert", news.collect, {"propagate": True}),
    (Job, "after_update", news.collect_moved, {"propagate": True}),
    (Session, "pending_to_transient", references.refuse_expunged, {}),
    (Session, "after_flush", news.announce_flushed, {}),
    (Session, "after_flush_postexec", insert_held, {}),
    (Session, "do_orm_execute", news.announce_bulk, {}),
    (Session, "after_commit", news.wake, {}),
    (Session, "after_rollback", pending.forget_inserted, {}),
    (Session, "after_soft_rollback", drop_flush, {}),
    (Session, "after_transaction_end", end_transaction, {}),
)
