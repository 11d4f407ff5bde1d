"""The session event hook: jobs that a session flushes are announced, and wake this process.

The flush inserts them, and NOTIFY announces them, inside the transaction: rolled back with them, to
a savepoint too. At the commit of the root transaction the instances of this process are woken
directly; that is a short cut only, since `after_commit` also fires for a session that joined
somebody's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Connection, Result, TwoPhaseTransaction, event, inspect
from sqlalchemy.orm import (
    FromStatement,
    ORMExecuteState,
    Session,
    SessionTransaction,
    object_session,
)

from .. import wakeups
from ..errors import ObanError
from ..models import Job, JobState
from ..models.state import STAGEABLE
from ..models.unique_job import may_hold_key
from ..statements.announce import announce, announce_everything, announcement
from ..statements.insert import check_json
from ..statements.insert import insert as insert_jobs
from ..wakeups import Address, Wakeup
from . import encoding, observed, pending, references
from .batch import MOST_UNIQUE, Batch, encoded, wakeup
from .connections import execute_core, insert_unique_core
from .from_rows import fill
from .session_of import BIND
from .unique import apart

_KEY = "oban_sqla"
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_NOTHING = Wakeup()


class _Tables(NamedTuple):
    """Where jobs went: through which connection, into which schema if that is known."""

    connection: Connection
    prefix: str | None


@dataclass(slots=True)
class _News:
    """What became of jobs in one place: in the flush that runs, and in the transaction."""

    queues: set[str] = field(default_factory=set)
    due_at: datetime | None = None
    total: Wakeup = field(default_factory=Wakeup)

    def take_flushed(self) -> Wakeup:
        """What the flush brought, which now counts for the transaction."""
        flushed = Wakeup(frozenset(self.queues), self.due_at)
        self.forget_flushed()
        self.total |= flushed
        return flushed

    def forget_flushed(self) -> None:
        self.queues.clear()
        self.due_at = None


def attach() -> None:
    """Hook the listeners to every session; importing `oban_sqla` does so."""
    for target, name, listener, options in _LISTENERS:
        if not event.contains(target, name, listener):
            event.listen(target, name, listener, **options)


def detach() -> None:
    """Take the listeners off: jobs are then found by the polls alone."""
    for target, name, listener, _ in _LISTENERS:
        if event.contains(target, name, listener):
            event.remove(target, name, listener)


def insert_pending(session: Session, flush_context: Any, objects: Iterable[object] | None) -> None:
    """Insert the pending jobs that need no unit of work, and announce them.

    Those that wait for a key in their arguments are held back until the flush has done its work.
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
    # All or none: their ids come in the order in which they were added.
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
        # The unit of work says so, and rolls back what it is in, as for any object.
        return
    references.hold(session, waiting)
    _insert(session, batches)


def insert_held(session: Session, flush_context: Any) -> None:
    """Insert the jobs that were held back, whose keys are known now."""
    if held := references.release(session):
        _insert_apart(session, held)
    references.complete(session)
    observed.flushed(session)


def insert(session: Session, jobs: Sequence[Job]) -> None:
    """Insert jobs in the session's transaction now, and announce them; they are persistent then.

    `ValueError` or `TypeError` for what can't be stored.
    """
    with observed.observed(jobs):
        _insert_apart(session, jobs)


def _insert_apart(session: Session, jobs: Sequence[Job]) -> None:
    plain, unique = apart(jobs)
    _insert(session, list(encoded(plain)), list(encoded(unique, MOST_UNIQUE)))


def _insert(session: Session, plain: Sequence[Batch], unique: Sequence[Batch] = ()) -> None:
    if plain or unique:
        connection = session.connection(bind_arguments=BIND)
        encoding.check(connection, (*plain, *unique))
        pending.insert_plain(session, connection, plain)
        pending.insert_unique(session, connection, unique)
        news = _news(session, _tables(connection))
        for batch in plain:
            news.total |= batch.wakeup
        for batch in unique:
            news.total |= wakeup(batch.jobs)


def insert_outside(session: Session, jobs: Sequence[Job]) -> None:
    """Insert jobs in the session's transaction now, and announce them; it does not hold them.

    `ValueError` or `TypeError` for jobs that can't be stored.
    """
    if session.autoflush:
        session.flush()
    references.check(jobs)
    with observed.observed(jobs):
        plain, unique = apart(jobs)
        batches = list(encoded(plain))
        connection = session.connection(bind_arguments=BIND)
        encoding.check(connection, batches)
        for batch in batches:
            fill(batch.jobs, execute_core(connection, insert_jobs, batch.parameters, None))
        if unique:
            insert_unique_core(connection, unique)
    _news(session, _tables(connection)).total |= wakeup(jobs)


def _insert_unique(session: Session, jobs: Sequence[Job], objects: Iterable[object] | None) -> None:
    # What the flush deletes or ends may be what a job conflicts with.
    changed = pending.changes_jobs(session, objects)
    later = jobs if changed else references.waiting(session, jobs)
    if later and not references.may_wait(session, later):
        raise ObanError(
            f"{later[0]!r} is unique, and has to wait for rows of this flush, which has others that"
            " may refer to jobs: flush before you enqueue it"
        )
    behind = set(map(id, later))
    _insert_apart(session, [job for job in jobs if id(job) not in behind])
    references.hold(session, later)


def renew(mapper: Any, connection: Connection, job: Job) -> None:
    """Have the database give an id, also if it gave one before, in what was rolled back then.

    `ValueError` or `TypeError` for what was put into its args or meta later, and can't be stored.
    """
    if may_hold_key(job):
        raise ObanError(
            f"{job!r} is unique, and was added while a flush ran, or holds what no new job does:"
            " make one with new(), and add it before the flush begins, or in after_flush"
        )
    session = object_session(job)
    assert session is not None
    observed.late(session, job)
    check_json(vars(job))
    references.note_incomplete(connection, job)
    # The column is GENERATED ALWAYS: sending an id would break the transaction.
    vars(job).pop("id", None)


def complete(mapper: Any, connection: Connection, job: Job) -> None:
    """Note a job whose new arguments refer to what has no key yet."""
    if inspect(job).attrs.args.history.has_changes():
        references.note_incomplete(connection, job)


def collect(mapper: Any, connection: Connection, job: Job) -> None:
    """Note a job that was inserted."""
    session = object_session(job)
    assert session is not None
    news = _news(session, _tables(connection))
    if job.state == JobState.AVAILABLE:
        news.queues.add(job.queue)
    elif job.state in STAGEABLE:
        news.due_at = min(news.due_at or job.scheduled_at, job.scheduled_at)


def collect_moved(mapper: Any, connection: Connection, job: Job) -> None:
    """Note a job that was moved to another state, queue or time."""
    attributes = inspect(job).attrs
    if any(attributes[key].history.has_changes() for key in ("state", "queue", "scheduled_at")):
        collect(mapper, connection, job)


def announce_flushed(session: Session, flush_context: Any) -> None:
    """Notify of the jobs of this flush, once for each queue."""
    for tables, news in session.info.get(_KEY, {}).items():
        flushed = news.take_flushed()
        if flushed and _may_notify(tables.connection):
            tables.connection.execute(announce(prefix=tables.prefix), announcement(flushed))


def announce_bulk(state: ORMExecuteState) -> Result[Any] | None:
    """Notify of a bulk INSERT or UPDATE, which passes no flush: of every queue that runs."""
    if not (state.is_insert or state.is_update):
        return None
    if getattr(executed(state), "table", None) != Job.__table__:
        return None
    # The rows first: with autocommit, whoever hears of them must find them.
    if state.is_insert:
        with observed.inserting(state.parameters) as changed:
            result = state.invoke_statement(params=changed)
    else:
        result = state.invoke_statement()
    connection = state.session.connection(bind_arguments=state.bind_arguments)
    tables = _tables(connection, state.execution_options)
    _news(state.session, tables).total = Wakeup(queues=None)
    if _may_notify(connection):
        options = {"schema_translate_map": {None: tables.prefix}} if tables.prefix else {}
        statement = announce_everything(prefix=tables.prefix)
        connection.execute(statement, execution_options=options)
    return result


def executed(state: ORMExecuteState) -> Any:
    """The statement itself, also within `select(Model).from_statement(insert(Model)...)`."""
    statement = state.statement
    return statement.element if isinstance(statement, FromStatement) else statement


def announce_moved(
    session: Session, moved: Wakeup = _NOTHING, cancelled: Collection[int] = ()
) -> None:
    """Tell of jobs that were moved without a flush, and of those that are cancelled while they run.

    As with those that were flushed: now by NOTIFY, and at the root commit within this process.
    """
    if not moved and not cancelled:
        return
    connection = session.connection(bind_arguments=BIND)
    tables = _tables(connection)
    _news(session, tables).total |= moved
    if _may_notify(connection):
        connection.execute(announce(prefix=tables.prefix), announcement(moved, cancelled))


def wake(session: Session) -> None:
    """At the root commit, wake the instances of this process."""
    if session.in_nested_transaction():
        return
    for tables, news in session.info.pop(_KEY, {}).items():
        if news.total:
            address = Address.of(tables.connection.engine.url)
            wakeups.publish(address, tables.prefix, news.total)


def forget_flushed(session: Session, transaction: SessionTransaction) -> None:
    """After a rollback, to a savepoint too, drop what a flush that failed had noted."""
    for news in session.info.get(_KEY, {}).values():
        news.forget_flushed()
    references.forget(session)
    observed.undone(session)


def forget(session: Session, transaction: SessionTransaction) -> None:
    """At the end of the root transaction, however it ended, start afresh."""
    pending.end_transaction(session, transaction)
    if transaction.parent is None:
        session.info.pop(_KEY, None)
        observed.undone(session)


def _news(session: Session, tables: _Tables) -> _News:
    places: dict[_Tables, _News] = session.info.setdefault(_KEY, {})
    return places.setdefault(tables, _News())


def _tables(connection: Connection, options: Mapping[str, Any] = _NO_OPTIONS) -> _Tables:
    for given in (options, connection.get_execution_options()):
        if schemas := given.get("schema_translate_map"):
            return _Tables(connection, schemas.get(None))
    return _Tables(connection, None)


def _may_notify(connection: Connection) -> bool:
    # PostgreSQL refuses to PREPARE a transaction that has notified anybody.
    return not isinstance(connection.get_transaction(), TwoPhaseTransaction)


_LISTENERS: tuple[tuple[Any, str, Callable[..., Any], dict[str, bool]], ...] = (
    (Session, "before_flush", insert_pending, {}),
    (Job, "before_insert", renew, {"propagate": True}),
    (Job, "before_update", complete, {"propagate": True}),
    (Job, "after_insert", collect, {"propagate": True}),
    (Job, "after_update", collect_moved, {"propagate": True}),
    (Session, "pending_to_transient", references.refuse_expunged, {}),
    (Session, "after_flush", announce_flushed, {}),
    (Session, "after_flush_postexec", insert_held, {}),
    (Session, "do_orm_execute", announce_bulk, {}),
    (Session, "after_commit", wake, {}),
    (Session, "after_rollback", pending.forget_inserted, {}),
    (Session, "after_soft_rollback", forget_flushed, {}),
    (Session, "after_transaction_end", forget, {}),
)
