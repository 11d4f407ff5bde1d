"""A worker's transaction stays open until its job's completion ends it: no way past that is quiet.

The ends that a session or a connection of SQLAlchemy tells of are refused. An end that only the
driver knows is found by the next statement, or after `process()`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Transaction, event
from sqlalchemy.orm import Session, SessionTransaction

from ..errors import ObanError

_ENDS = re.compile(
    r"(?:\s|;|--[^\n]*\n|/\*.*?\*/)*"
    r"(?:COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(?:WORK\s+|TRANSACTION\s+)?TO\b))\b",
    re.IGNORECASE | re.DOTALL,
)

_REFUSED = (
    "the session that process() is given is committed with the job's completion, not by process():"
    " leave the commit out, use begin_nested() for a savepoint, or open a session of your own"
)
_ENDED = (
    "the transaction of the session that process() is given has ended before the job's completion,"
    " by a COMMIT or ROLLBACK past the session, or because the engine is in AUTOCOMMIT: what was"
    " committed can't be rolled back"
)


@contextmanager
def kept_open(session: Session) -> Iterator[None]:
    """Refuse to end the transaction of a session, until the block ends.

    `ObanError` for what would end it, and at the end of the block if something has ended it.
    """
    watch = _Watch()
    listeners: tuple[tuple[str, Callable[..., None]], ...] = (
        ("before_commit", _refuse),
        ("after_begin", watch.begin),
        ("after_transaction_end", watch.end),
    )
    for name, listener in listeners:
        event.listen(session, name, listener)
    try:
        yield
        if session.in_transaction():
            watch.check()
    finally:
        for name, listener in listeners:
            event.remove(session, name, listener)
        watch.stop()


class _Watch:
    """The connections of a session, with the transaction that the session has on each."""

    def __init__(self) -> None:
        self._open: dict[Connection, Transaction | None] = {}
        # Before its first statement, a driver has not begun any transaction.
        self._used: set[Connection] = set()
        self._listeners: tuple[tuple[str, Callable[..., None]], ...] = (
            ("commit", self._committing),
            ("before_cursor_execute", self._executing),
            ("after_cursor_execute", self._executed),
        )

    def begin(
        self, session: Session, transaction: SessionTransaction, connection: Connection
    ) -> None:
        """Watch a connection in a transaction that the session begins."""
        if transaction.nested:
            return
        for name, listener in self._listeners:
            event.listen(connection, name, listener)
        self._open[connection] = connection.get_nested_transaction() or connection.get_transaction()

    def check(self) -> None:
        """`ObanError` if something has ended a transaction past the session."""
        for connection, transaction in self._open.items():
            if transaction is not None and not transaction.is_active:
                raise ObanError(_ENDED)
            self._check_driver(connection)

    def end(self, session: Session, transaction: SessionTransaction) -> None:
        """Stop when the session itself ends the transaction, by a rollback."""
        if transaction.parent is None:
            self.stop()

    def stop(self) -> None:
        """Leave the connections alone."""
        for connection in self._open:
            for name, listener in self._listeners:
                event.remove(connection, name, listener)
        self._open.clear()
        self._used.clear()

    def _committing(self, connection: Connection) -> None:
        # A failed commit leaves it to the driver to end the transaction: the pool would not.
        connection.connection.rollback()
        raise ObanError(_REFUSED)

    def _executing(self, connection: Connection, cursor: Any, statement: str, *rest: Any) -> None:
        self._check_driver(connection)
        if _ENDS.match(statement):
            raise ObanError(_REFUSED)

    def _executed(self, connection: Connection, *rest: Any) -> None:
        self._used.add(connection)
        self._check_driver(connection)

    def _check_driver(self, connection: Connection) -> None:
        if connection in self._used and not connection.invalidated and _is_idle(connection):
            raise ObanError(_ENDED)


def _refuse(session: Session) -> None:
    if not session.in_nested_transaction():
        raise ObanError(_REFUSED)


def _is_idle(connection: Connection) -> bool:
    """Whether the driver says that no transaction is open; it asks no server for that."""
    driver: Any = connection.connection.driver_connection
    if (info := getattr(driver, "info", None)) is not None:
        return bool(info.transaction_status == TransactionStatus.IDLE)
    is_in_transaction = getattr(driver, "is_in_transaction", None)  # asyncpg
    return is_in_transaction is not None and not is_in_transaction()
