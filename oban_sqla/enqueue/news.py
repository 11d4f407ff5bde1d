"""Announce new and moved jobs to all processes, and wake the instances of this process.

NOTIFY is sent inside the transaction, so a rollback, also to a savepoint, drops it with the jobs.
At the commit of the root transaction, the instances of this process are woken directly. This is
only a short cut, since `after_commit` also fires for a session that joined another transaction.
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
    """The tables to which jobs were written: the connection, and the schema if it is known."""

    connection: Connection
    prefix: str | None


@dataclass(slots=True)
class _News:
    """The news of one schema: of the current flush, and in `total` of the transaction."""

    queues: set[str] = field(default_factory=set)
    due_at: datetime | None = None
    total: Wakeup = _NOTHING

    def take_flushed(self) -> Wakeup:
        """Move the news of the flush to those of the transaction, and return them."""
        if not self.queues and self.due_at is None:
            return _NOTHING
        flushed = Wakeup(frozenset(self.queues), self.due_at)
        self.forget_flushed()
        self.total |= flushed
        return flushed

    def forget_flushed(self) -> None:
        self.queues.clear()
        self.due_at = None


def add(session: Session, connection: Connection, wakeup: Wakeup) -> None:
    """Add news of jobs that were already announced by NOTIFY."""
    _news(session, _tables(connection)).total |= wakeup


def collect(mapper: Any, connection: Connection, job: Job) -> None:
    """Note an inserted job. A listener of `after_insert`."""
    session = object_session(job)
    assert session is not None
    news = _news(session, _tables(connection))
    if job.state == JobState.AVAILABLE:
        news.queues.add(job.queue)
    elif job.state in STAGEABLE:
        news.due_at = min(news.due_at or job.scheduled_at, job.scheduled_at)


def collect_moved(mapper: Any, connection: Connection, job: Job) -> None:
    """Note a job whose state, queue or time has changed. A listener of `after_update`."""
    attributes = inspect(job).attrs
    if any(attributes[key].history.has_changes() for key in ("state", "queue", "scheduled_at")):
        collect(mapper, connection, job)


def announce_flushed(session: Session, flush_context: Any) -> None:
    """NOTIFY about the jobs of this flush, once for each queue."""
    for tables, news in session.info.get(_KEY, {}).items():
        flushed = news.take_flushed()
        if flushed and _may_notify(tables.connection):
            tables.connection.execute(announce(prefix=tables.prefix), announcement(flushed))


def announce_bulk(state: ORMExecuteState) -> Result[Any] | None:
    """NOTIFY every running queue after a bulk INSERT or UPDATE, which has no flush."""
    if not (state.is_insert or state.is_update):
        return None
    if getattr(executed(state), "table", None) != Job.__table__:
        return None
    # Rows first: with autocommit, a process that hears the NOTIFY must find them.
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
    session: Session,
    moved: Wakeup = _NOTHING,
    cancelled: Collection[int] = (),
    *,
    freed: bool = False,
) -> None:
    """Announce jobs that were moved without a flush, and jobs that were cancelled while they run.

    freed: whether a limit may have a free slot, since it no longer counts a running job.

    NOTIFY is sent now. The instances of this process are woken at the root commit.
    """
    if not moved and not cancelled and not freed:
        return
    connection = session.connection(bind_arguments=BIND)
    tables = _tables(connection)
    _news(session, tables).total |= moved
    if _may_notify(connection):
        connection.execute(
            announce(prefix=tables.prefix), announcement(moved, cancelled, freed=freed)
        )


def wake(session: Session) -> None:
    """Wake the instances of this process, at the root commit."""
    if session.in_nested_transaction():
        return
    for tables, news in session.info.pop(_KEY, {}).items():
        if news.total:
            address = Address.of(tables.connection.engine.url)
            wakeups.publish(address, tables.prefix, news.total)


def forget_flushed(session: Session) -> None:
    """Drop the news of a failed flush, after a rollback or a rollback to a savepoint."""
    for news in session.info.get(_KEY, {}).values():
        news.forget_flushed()


def forget_all(session: Session) -> None:
    """Drop all news, at the end of the root transaction."""
    session.info.pop(_KEY, None)


def _news(session: Session, tables: _Tables) -> _News:
    by_tables: dict[_Tables, _News] = session.info.setdefault(_KEY, {})
    return by_tables.setdefault(tables, _News())


def _tables(connection: Connection, options: Mapping[str, Any] = _NO_OPTIONS) -> _Tables:
    for given in (options, connection.get_execution_options()):
        if schemas := given.get("schema_translate_map"):
            return _Tables(connection, schemas.get(None))
    return _Tables(connection, None)


def _may_notify(connection: Connection) -> bool:
    # PostgreSQL refuses PREPARE TRANSACTION after a NOTIFY.
    return not isinstance(connection.get_transaction(), TwoPhaseTransaction)
