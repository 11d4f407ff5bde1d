"""Notes about a session, kept by the savepoint or transaction whose rollback makes them untrue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeAlias, TypeVar

from sqlalchemy.orm import Session, SessionTransaction

T = TypeVar("T")

_Notes: TypeAlias = dict[SessionTransaction, list[T]]


class SavepointLog(Generic[T]):
    """Notes of one kind, kept in the `info` of sessions."""

    def __init__(self, key: str) -> None:
        self._key = key

    def add(self, session: Session, notes: Iterable[T]) -> None:
        """Add notes that are true until the current savepoint or transaction is rolled back."""
        noted: _Notes[T] = session.info.setdefault(self._key, {})
        noted.setdefault(_innermost(session), []).extend(notes)

    def all(self, session: Session) -> Iterator[T]:
        """All notes of the transaction that are true now."""
        for notes in self._of(session).values():
            yield from notes

    def undone(self, session: Session) -> list[T]:
        """Remove and return the notes that a rollback made untrue. For `after_rollback`."""
        noted = self._of(session)
        return noted.pop(_innermost(session), []) if noted else []

    def end(self, session: Session, transaction: SessionTransaction) -> None:
        """Move the notes of a released savepoint to the transaction around it.

        For `after_transaction_end`.
        """
        if self._key not in session.info:
            return
        notes = self._of(session).pop(transaction, None)
        if transaction.parent is None:
            session.info.pop(self._key, None)
        elif notes:
            self.add(session, notes)

    def _of(self, session: Session) -> _Notes[T]:
        noted: _Notes[T] = session.info.get(self._key, {})
        return noted


def _innermost(session: Session) -> SessionTransaction:
    transaction = session.get_nested_transaction() or session.get_transaction()
    assert transaction is not None
    return transaction
