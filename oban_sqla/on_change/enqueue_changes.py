"""Enqueue on change: the listeners of sessions that enqueue the jobs of workers that react.

The flush that changes the rows inserts the jobs after them, so a rollback, also to a savepoint,
removes both. Each worker gets one job for a row in a transaction, however often it is flushed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection, Result, delete, event, inspect
from sqlalchemy.orm import Mapper, ORMExecuteState, Session, SessionTransaction, object_session

from ..enqueue import unit_of_work
from ..enqueue.savepoints import SavepointLog
from ..enqueue.session_of import BIND
from ..models import Job
from ..models.job_id import identity
from ..statements.ids import one_of
from . import bulk_statements
from .reaction import Change, Reaction

_CHANGED = "oban_sqla_changed"


class _Enqueued(NamedTuple):
    """The job of a change; `None` if the change needs no job any more."""

    worker: str
    key: object
    change: Change
    job: Job | None


_enqueued = SavepointLog[_Enqueued]("oban_sqla_on_change")

# Keyed by the worker's name, since a reloaded module declares its workers again.
_reactions: dict[str, Reaction] = {}


def react(reaction: Reaction) -> None:
    """Let sessions enqueue the jobs of a reaction."""
    _reactions[reaction.declaration.name] = reaction
    for name, listener in _MAPPER_LISTENERS:
        if not event.contains(reaction.model, name, listener):
            event.listen(reaction.model, name, listener, propagate=True)
    for name, session_listener in _SESSION_LISTENERS:
        if not event.contains(Session, name, session_listener):
            event.listen(Session, name, session_listener)


def _to(cls: type) -> list[Reaction]:
    return [one for one in _reactions.values() if issubclass(cls, one.model)]


def _inserted(mapper: Any, connection: Connection, instance: object) -> None:
    _note("insert", instance)


def _updated(mapper: Any, connection: Connection, instance: object) -> None:
    _note("update", instance)


def _deleted(mapper: Any, connection: Connection, instance: object) -> None:
    _note("delete", instance)


def _note(change: Change, instance: object) -> None:
    session = object_session(instance)
    assert session is not None
    attributes = inspect(instance).attrs

    def is_changed(name: str) -> bool:
        return bool(attributes[name].history.has_changes())

    if change == "update" and not session.is_modified(instance, include_collections=False):
        return
    for reaction in _to(type(instance)):
        # A delete always counts, since an earlier job would not find the row.
        if change == "delete" or reaction.counts(change, is_changed):
            session.info.setdefault(_CHANGED, []).append((reaction, change, instance))


def _enqueue_flushed(session: Session, flush_context: Any) -> None:
    changed = session.info.pop(_CHANGED, ())
    if not changed:
        return
    found = _Found(session)
    for reaction, change, instance in changed:
        if reaction.when is None or reaction.when(instance):
            key = inspect(instance).key
            found.add(reaction, change, key, partial(reaction.job, change, instance))
    found.enqueue()


class _Found:
    """The jobs that a flush or a statement enqueues."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known = {(one.worker, one.key): one for one in _enqueued.all(session)}
        self._new: list[_Enqueued] = []
        self._withdrawn: list[int] = []

    def add(self, reaction: Reaction, change: Change, key: object, make: Callable[[], Job]) -> None:
        """Add the job of a change, unless the transaction has a job for the row already."""
        if reaction.is_own(key):
            return
        worker = reaction.declaration.name
        known = self._known.get((worker, key))
        if change == "delete":
            self._add_delete(reaction, key, known, make)
        # After a delete, a new row may have the same key.
        elif known is None or known.job is None or known.change == "delete":
            self._note(_Enqueued(worker, key, change, make()))

    def _add_delete(
        self, reaction: Reaction, key: object, known: _Enqueued | None, make: Callable[[], Job]
    ) -> None:
        came_and_went = False
        if known is not None and known.job is not None:
            if known.change == "delete":
                return
            # The earlier job would not find the row.
            self._withdraw(known.job)
            came_and_went = known.change == "insert"
        # A row that was inserted and deleted in one transaction needs no job.
        if reaction.delete and not came_and_went:
            self._note(_Enqueued(reaction.declaration.name, key, "delete", make()))
        elif known is not None:
            self._note(_Enqueued(reaction.declaration.name, key, "delete", None))

    def enqueue(self) -> None:
        """Delete the jobs that would not find their rows, and insert the new jobs."""
        if self._withdrawn:
            # Deleted first, so that a new unique job does not conflict with one of them.
            self._session.execute(
                delete(Job).where(one_of(self._withdrawn)),
                execution_options={"synchronize_session": "fetch", "autoflush": False},
                bind_arguments=BIND,
            )
        jobs = [one.job for one in self._new if one.job is not None]
        unit_of_work.insert_now(self._session, jobs)
        _enqueued.add(self._session, self._new)

    def _withdraw(self, job: Job) -> None:
        # A duplicate belongs to another transaction, so it must stay.
        if not job.conflict and (id := identity(job)) is not None:
            self._withdrawn.append(id)

    def _note(self, enqueued: _Enqueued) -> None:
        self._known[enqueued.worker, enqueued.key] = enqueued
        self._new.append(enqueued)


def _enqueue_executed(state: ORMExecuteState) -> Result[Any] | None:
    """Enqueue jobs for the rows of an UPDATE or DELETE without a flush.

    `ObanError`, before anything is sent, if the statement does not return the keys of its rows.
    """
    change = bulk_statements.change(state)
    if change is None or state.execution_options.get(bulk_statements.OPTION) is False:
        return None
    reactions = bulk_statements.concerned(state, change, _reactions.values())
    if not reactions:
        return None
    bulk_statements.refuse_untold(state, change, reactions)
    result, keys = bulk_statements.execute(state)
    found = _Found(state.session)
    for reaction in reactions:
        for cls, primary_key, row in bulk_statements.rows(state, reaction, keys):
            mapper: Mapper[Any] = inspect(cls)
            key = mapper.identity_key_from_primary_key(primary_key)
            if row is None:
                found.add(reaction, change, key, partial(reaction.job_of, change, cls, primary_key))
            else:
                found.add(reaction, change, key, partial(reaction.job, change, row))
    found.enqueue()
    return result


def _forget_flushed(session: Session, transaction: SessionTransaction) -> None:
    session.info.pop(_CHANGED, None)


_MAPPER_LISTENERS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("after_insert", _inserted),
    ("after_update", _updated),
    ("after_delete", _deleted),
)

_SESSION_LISTENERS: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("after_flush_postexec", _enqueue_flushed),
    ("do_orm_execute", _enqueue_executed),
    ("after_rollback", _enqueued.undone),
    ("after_soft_rollback", _forget_flushed),
    ("after_transaction_end", _enqueued.end),
)
