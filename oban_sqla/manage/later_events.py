"""Events about changes in a session, emitted when the transaction of the session has committed.

A rollback, also to a savepoint, drops the events with the changes.
"""

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from ..enqueue.savepoints import SavepointLog
from ..runtime.service import Emit


class _LaterEvent(NamedTuple):
    emit: Emit
    connection: Connection
    name: str
    data: object


_later = SavepointLog[_LaterEvent]("oban_sqla_later_events")


def emit_after_commit(
    session: Session, connection: Connection, emit: Emit, events: Iterable[tuple[str, object]]
) -> None:
    """Emit events about changes on a session's connection, after the root commit."""
    later = [_LaterEvent(emit, connection, *one) for one in events]
    if not later:
        return
    _later.add(session, later)
    # On this session alone, so that the commits of other sessions cost nothing more.
    for name, listener in (
        ("after_commit", _emit_all),
        ("after_rollback", _later.undone),
        ("after_transaction_end", _later.end),
    ):
        if not event.contains(session, name, listener):
            event.listen(session, name, listener)


def _emit_all(session: Session) -> None:
    if session.in_nested_transaction():
        return
    # A copy, since a listener may cause more events.
    for later in [*_later.all(session)]:
        # If the session joined a transaction of its connection, that one may still be rolled back.
        if not later.connection.in_transaction():
            later.emit(later.name, later.data)
