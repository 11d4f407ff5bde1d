"""What is noted of a session, by the savepoint or transaction whose rollback makes it untrue."""

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
        """Note what is so from now on, until the savepoint or the transaction is rolled back."""
        noted: _Notes[T] = session.info.setdefault(self._key, {})
        noted.setdefault(_innermost(session), []).extend(notes)

    def all(self, session: Session) -> Iterator[T]:
        """What is so in the transaction now."""
        for notes in self._of(session).values():
            yield from notes

    def undone(self, session: Session) -> list[T]:
        """What a rollback made untrue; to be called by `after_rollback`."""
        noted = self._of(session)
        return noted.pop(_innermost(session), []) if noted else []

    def end(self, session: Session, transaction: SessionTransaction) -> None:
        """When a savepoint is released, its notes are those of what is around it.

        To be called by `after_transaction_end`.
        """
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
