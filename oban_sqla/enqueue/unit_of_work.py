"""The session event hook: jobs that a session flushes are announced, and wake this process.

At the flush, inside the transaction, NOTIFY announces them: rolled back with them, to a savepoint
too. At the commit of the root transaction the instances of this process are woken directly; that
is a short cut only, since `after_commit` also fires for a session that joined somebody's
transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, TwoPhaseTransaction, event
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, object_session

from .. import wakeups
from ..models import Job, JobState
from ..statements.announce import announce, announce_everything
from ..wakeups import Address, Wakeup

_KEY = "oban_sqla"


@dataclass(slots=True)
class _News:
    """What became of jobs on one connection: since the last flush, and in the transaction."""

    flushed: Wakeup = field(default_factory=Wakeup)
    total: Wakeup = field(default_factory=Wakeup)


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


def collect(mapper: Any, connection: Connection, job: Job) -> None:
    """Note a job that is being inserted or updated."""
    session = object_session(job)
    if session is None:
        return
    if job.state is JobState.AVAILABLE:
        wakeup = Wakeup(queues=frozenset({job.queue}))
    elif job.state is JobState.SCHEDULED:
        wakeup = Wakeup(due_at=job.scheduled_at)
    else:
        return
    news = _news(session).setdefault(connection, _News())
    news.flushed |= wakeup


def announce_flushed(session: Session, flush_context: Any) -> None:
    """Notify of the jobs of this flush, once for each queue."""
    for connection, news in session.info.get(_KEY, {}).items():
        flushed, news.flushed = news.flushed, Wakeup()
        if flushed:
            news.total |= flushed
            if _may_notify(connection):
                prefix = _prefix(connection)
                connection.execute(announce(flushed.queues or (), flushed.due_at, prefix=prefix))


def announce_bulk(state: ORMExecuteState) -> None:
    """Notify of a bulk INSERT or UPDATE, which passes no flush: of every queue that runs."""
    if not (state.is_insert or state.is_update):
        return
    if getattr(state.statement, "table", None) != Job.__table__:
        return
    connection = state.session.connection(bind_arguments=state.bind_arguments)
    _news(state.session).setdefault(connection, _News()).total = Wakeup(queues=None)
    if _may_notify(connection):
        connection.execute(announce_everything(prefix=_prefix(connection)))


def wake(session: Session) -> None:
    """At the root commit, wake the instances of this process."""
    if session.in_nested_transaction():
        return
    for connection, news in session.info.pop(_KEY, {}).items():
        wakeups.publish(Address.of(connection.engine.url), _prefix(connection), news.total)


def forget(session: Session, transaction: SessionTransaction) -> None:
    """At the end of the root transaction, however it ended, start afresh."""
    if transaction.parent is None:
        session.info.pop(_KEY, None)


def _news(session: Session) -> dict[Connection, _News]:
    news: dict[Connection, _News] = session.info.setdefault(_KEY, {})
    return news


def _prefix(connection: Connection) -> str | None:
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    prefix: str | None = schemas.get(None)
    return prefix


def _may_notify(connection: Connection) -> bool:
    # PostgreSQL refuses to PREPARE a transaction that has notified anybody.
    return not isinstance(connection.get_transaction(), TwoPhaseTransaction)


_LISTENERS: tuple[tuple[Any, str, Callable[..., None], dict[str, bool]], ...] = (
    (Job, "after_insert", collect, {"propagate": True}),
    (Job, "after_update", collect, {"propagate": True}),
    (Session, "after_flush", announce_flushed, {}),
    (Session, "do_orm_execute", announce_bulk, {}),
    (Session, "after_commit", wake, {}),
    (Session, "after_transaction_end", forget, {}),
)
