"""The session events: a flush inserts the workflows of its session with their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import ref

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session, SessionTransaction, make_transient, object_session

from ..enqueue.savepoints import SavepointLog
from ..enqueue.session_of import BIND
from ..models.instrumentation import values_of
from ..series import run_series
from ..statements.execute import execute_core
from .insertion import Statements, after_jobs, before_jobs, prepare
from .plan import Plan
from .workflow import Workflow, growing

_PLANS = "oban_sqla_workflow_plans"

_inserted = SavepointLog[ref[Workflow]]("oban_sqla_workflows")
_grown = SavepointLog[ref[Workflow]]("oban_sqla_grown_workflows")


def attach() -> None:
    """Attach the listeners to all sessions, after those of jobs."""
    for name, listener, options in _LISTENERS:
        if not event.contains(Session, name, listener):
            event.listen(Session, name, listener, **options)


def detach() -> None:
    """Detach the listeners. They have to be attached after those of jobs."""
    for name, listener, _ in _LISTENERS:
        if event.contains(Session, name, listener):
            event.remove(Session, name, listener)


def insert_pending(session: Session, flush_context: Any, objects: Iterable[object] | None) -> None:
    """Insert the new workflows of a flush, and add their jobs to the session.

    The next listener inserts the jobs, like all pending jobs.
    """
    plans = _plans(session, objects)
    if not plans:
        return
    _run(session, prepare(plans))
    for plan in plans:
        for one in plan.workflows:
            if one in session:
                session.expunge(one)
    _run(session, before_jobs(plans))
    for plan in plans:
        if plan.workflow.conflict:
            continue
        session.add_all(plan.workflows)
        _inserted.add(session, map(ref, plan.workflows))
        if plan.grows:
            _grown.add(session, [ref(plan.workflow)])
        session.add_all(plan.jobs)
        session.info.setdefault(_PLANS, []).append(plan)


def insert_pending_steps(session: Session, *_: Any) -> None:
    """Insert the steps of the flush's workflows whose jobs have ids.

    A job that refers to a pending row gets its id after the flush has written the row. If a flush
    has nothing else to write, it ends before that event.
    """
    plans: list[Plan] = session.info.get(_PLANS, [])
    ready: list[Plan] = []
    waiting: list[Plan] = []
    for plan in plans:
        has_ids = all(inspect(job).has_identity for job in plan.jobs)
        (ready if has_ids else waiting).append(plan)
    if ready:
        plans[:] = waiting
        _run(session, after_jobs(ready))


def forget_inserted(session: Session) -> None:
    """Make workflows new again after a rollback of their transaction.

    A stored workflow loses the steps that were added to it.
    """
    new = set(_living(_inserted.undone(session)))
    grown = {*_living(_grown.undone(session)), *_growing_in(session)}
    for workflow in new:
        if inspect(workflow).has_identity:
            make_transient(workflow)
    for workflow in grown - new:
        workflow.graph.forget_new()
    growing.difference_update(grown)


def forget(session: Session, transaction: SessionTransaction) -> None:
    """Forget the plans of a failed flush, at the end of its transaction."""
    _inserted.end(session, transaction)
    _grown.end(session, transaction)
    if transaction.parent is None:
        session.info.pop(_PLANS, None)


def _plans(session: Session, objects: Iterable[object] | None) -> list[Plan]:
    new = [one for one in session.new if isinstance(one, Workflow)]
    stored = [one for one in _growing_in(session) if one.graph.has_new]
    if objects:
        chosen = set(map(id, objects))
        new, stored = ([one for one in found if id(one) in chosen] for found in (new, stored))
    if not new and not stored:
        return []
    whole = [one for one in new if values_of(one).get("parent_id") is None]
    plans = [Plan(one) for one in (*whole, *stored)]
    planned = {id(workflow) for plan in plans for workflow in plan.workflows}
    # A part whose whole is not in the session is refused here.
    return plans + [Plan(one) for one in new if id(one) not in planned]


def _growing_in(session: Session) -> list[Workflow]:
    # Most sessions have no such workflow, and iterating over a WeakSet costs more than asking
    # whether it is empty.
    return [one for one in [*growing] if object_session(one) is session] if growing else []


def _living(references: Iterable[ref[Workflow]]) -> Iterator[Workflow]:
    return (workflow for one in references if (workflow := one()) is not None)


def _run(session: Session, statements: Statements) -> None:
    connection = session.connection(bind_arguments=BIND)
    run_series(statements, lambda step: execute_core(connection, *step, None))


_LISTENERS: tuple[tuple[str, Callable[..., Any], dict[str, bool]], ...] = (
    # Runs before the listener that inserts the pending jobs.
    ("before_flush", insert_pending, {"insert": True}),
    # Runs after that listener.
    ("before_flush", insert_pending_steps, {}),
    ("after_flush_postexec", insert_pending_steps, {}),
    ("after_rollback", forget_inserted, {}),
    ("after_transaction_end", forget, {}),
)
