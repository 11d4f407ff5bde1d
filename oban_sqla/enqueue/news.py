"""The news of jobs: what a transaction did to jobs is announced, and wakes this process.

NOTIFY announces jobs inside the transaction: it is rolled back with them, to a savepoint too. At
the commit of the root transaction the instances of this process are woken directly. That is a
short cut only, since `after_commit` also fires for a session that joined somebody's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Connection, Result, TwoPhaseTransaction, inspect
from sqlalchemy.orm import FromStatement, ORMExecuteState, Session, object_session

from .. import wakeups
from ..models import Job, JobState
from ..models.state import STAGEABLE
from ..statements.announce import announce, announce_everything, announcement
from ..wakeups import Address, Wakeup
from . import observed
from .session_of import BIND

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


def add(session: Session, connection: Connection, wakeup: Wakeup) -> None:
    """Take the news of jobs that the one statement has inserted and announced."""
    _news(session, _tables(connection)).total |= wakeup


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


def forget_flushed(session: Session) -> None:
    """After a rollback, to a savepoint too, drop what a flush that failed had noted."""
    for news in session.info.get(_KEY, {}).values():
        news.forget_flushed()


def forget_all(session: Session) -> None:
    """At the end of the root transaction, however it ended, start afresh."""
    session.info.pop(_KEY, None)


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
