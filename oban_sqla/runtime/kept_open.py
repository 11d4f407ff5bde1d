"""Keep a worker's transaction open until the completion of its job commits it.

A commit through a session or a connection of SQLAlchemy is refused. If only the driver knows of the
end of the transaction, the next statement or the end of `process()` finds out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, Transaction, event
from sqlalchemy.orm import Session, SessionTransaction

from ..errors import ObanError

_ENDS = re.compile(
    r"(?:\s|;|--[^\n]*\n|/\*.*?\*/)*"
    r"(?:COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(?:WORK\s+|TRANSACTION\s+)?TO\b))\b",
    re.IGNORECASE | re.DOTALL,
)

_REFUSED = (
    "the session of process() is committed together with the job's completion, so process() must"
    " not commit it: leave the commit out, use begin_nested() for a savepoint, or open a session of"
    " your own"
)
_ENDED = (
    "the transaction of the session of process() has ended before the job's completion, by a COMMIT"
    " or ROLLBACK without the session, or because the engine is in AUTOCOMMIT: changes that were"
    " committed can't be rolled back"
)


_KEY = "oban_sqla_kept_open"
"""The key of the watch in the `info` of a session."""


@contextmanager
def kept_open(session: Session) -> Iterator[None]:
    """During a block, refuse to end the transaction of a session.

    `ObanError` for each call that would end the transaction, and at the end of the block if the
    transaction has ended.
    """
    # Listeners for all sessions: attaching them to one session costs more than to check its `info`.
    for name, listener in _SESSION_LISTENERS:
        if not event.contains(Session, name, listener):
            event.listen(Session, name, listener)
    watch = session.info[_KEY] = _Watch()
    try:
        yield
        if session.in_transaction():
            watch.check()
    finally:
        del session.info[_KEY]
        watch.stop()


class _Watch:
    """Watches the connections of a session, with the transaction on each."""

    def __init__(self) -> None:
        self._open: dict[Connection, Transaction | None] = {}
        # A driver begins a transaction with the first statement.
        self._used: set[Connection] = set()

    def begin(self, connection: Connection) -> None:
        """Watch a connection on which the session begins a transaction."""
        if connection.engine not in _engines:
            _engines.add(connection.engine)
            for name, listener in _CONNECTION_LISTENERS:
                event.listen(connection.engine, name, listener)
        _watches[connection] = self
        self._open[connection] = connection.get_nested_transaction() or connection.get_transaction()

    def check(self) -> None:
        """`ObanError` if a transaction has ended without the session."""
        for connection, transaction in self._open.items():
            if transaction is not None and not transaction.is_active:
                raise ObanError(_ENDED)
            self.check_driver(connection)

    def check_driver(self, connection: Connection) -> None:
        """`ObanError` if the driver says that the transaction has ended."""
        if connection in self._used and not connection.invalidated and _is_idle(connection):
            raise ObanError(_ENDED)

    def use(self, connection: Connection) -> None:
        """Note that a statement was executed."""
        self._used.add(connection)
        self.check_driver(connection)

    def stop(self) -> None:
        """Stop watching the connections."""
        for connection in self._open:
            _watches.pop(connection, None)
        self._open.clear()
        self._used.clear()


_watches: dict[Connection, _Watch] = {}
_engines: WeakSet[Engine] = WeakSet()


def _before_commit(session: Session) -> None:
    if _KEY in session.info and not session.in_nested_transaction():
        raise ObanError(_REFUSED)


def _after_begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    watch: _Watch | None = session.info.get(_KEY)
    if watch is not None and not transaction.nested:
        watch.begin(connection)


def _after_end(session: Session, transaction: SessionTransaction) -> None:
    # The session itself may end the transaction with a rollback.
    watch: _Watch | None = session.info.get(_KEY)
    if watch is not None and transaction.parent is None:
        watch.stop()


def _committing(connection: Connection) -> None:
    if connection in _watches:
        # SQLAlchemy takes the transaction for ended, so the pool would not roll it back.
        connection.connection.rollback()
        raise ObanError(_REFUSED)


def _executing(connection: Connection, cursor: Any, statement: str, *rest: Any) -> None:
    if (watch := _watches.get(connection)) is not None:
        watch.check_driver(connection)
        if _ENDS.match(statement):
            raise ObanError(_REFUSED)


def _executed(connection: Connection, *rest: Any) -> None:
    if (watch := _watches.get(connection)) is not None:
        watch.use(connection)


_SESSION_LISTENERS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("before_commit", _before_commit),
    ("after_begin", _after_begin),
    ("after_transaction_end", _after_end),
)
_CONNECTION_LISTENERS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("commit", _committing),
    ("before_cursor_execute", _executing),
    ("after_cursor_execute", _executed),
)


def _is_idle(connection: Connection) -> bool:
    """Whether the driver knows of no open transaction, without I/O."""
    driver: Any = connection.connection.driver_connection
    if (info := getattr(driver, "info", None)) is not None:
        return bool(info.transaction_status == TransactionStatus.IDLE)
    is_in_transaction = getattr(driver, "is_in_transaction", None)  # asyncpg
    return is_in_transaction is not None and not is_in_transaction()
