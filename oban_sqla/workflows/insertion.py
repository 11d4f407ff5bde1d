"""Insert workflows: the statements before and after those that insert their jobs."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from sqlalchemy import inspect
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from ..enqueue import connections, encoding, references
from ..enqueue.batch import encoded
from ..models import validation
from ..models.instrumentation import values_of
from ..series import Series, run_series_async
from ..statements.execute import Make, Parameters
from .growth import dependents_of_stored, find_stored_deps, lock_running, more_steps
from .plan import Plan
from .rows import rows_of_steps, rows_of_workflows
from .statements import (
    add_dependents,
    count_more,
    find_unique,
    insert_steps,
    insert_workflows,
    rows,
)
from .workflow import Workflow, growing, known_id

Statements: TypeAlias = Series[tuple[Make, Parameters], None]
"""A series of statements with their parameters."""


async def insert_through(workflow: Workflow, conn: object, prefix: str | None) -> None:
    """Insert a workflow, or the steps added to a stored one, through any connection but a session.

    `ValueError`, `TypeError` or `ObanError` for a workflow that can't be inserted. Nothing has been
    written then.
    """
    connections.refuse_unknown(conn)
    plans = [plan] = [Plan(workflow)]
    references.refuse_without_key(plan.jobs)
    encoding.refuse_unstorable(conn, [*encoded(plan.jobs)])

    async def run(statements: Statements) -> None:
        await run_series_async(statements, lambda step: connections.execute(conn, *step, prefix))

    await run(prepare(plans))
    await run(before_jobs(plans))
    if not workflow.conflict:
        await connections.insert_through(conn, plan.jobs, prefix)
        await run(after_jobs(plans))


def prepare(plans: Sequence[Plan]) -> Statements:
    """Lock the stored workflows of the plans, find the stored deps, and suspend the new steps.

    The statements write nothing. `ValueError` or `ObanError` for steps that can't be added to a
    stored workflow.
    """
    # All transactions lock workflows in the same order, so that they can't deadlock.
    stored = [plan for plan in plans if plan.grows]
    for plan in sorted(stored, key=lambda plan: known_id(plan.workflow)):
        yield from lock_running(plan)
        yield from find_stored_deps(plan)
    for plan in plans:
        plan.suspend()


def before_jobs(plans: Sequence[Plan]) -> Statements:
    """Insert the new workflows of the plans. Each duplicate of a unique workflow gets a `conflict`.

    The jobs and steps of a workflow with a `conflict` are not to be inserted.
    """
    unique = [plan for plan in plans if not plan.grows and plan.workflow.unique_key is not None]
    for plan in sorted(unique, key=lambda plan: str(plan.workflow.unique_key)):
        yield from _insert_unique(plan)
    others = [plan for plan in plans if plan not in unique]
    yield from _insert_workflows(
        [workflow for plan in others for workflow in plan.workflows],
        [row for plan in others for row in rows_of_workflows(plan)],
    )


def after_jobs(plans: Sequence[Plan]) -> Statements:
    """Insert the steps of the plans, whose jobs have ids, and add them to stored workflows."""
    yield insert_steps, rows([row for plan in plans for row in rows_of_steps(plan)])
    for plan in plans:
        if plan.grows:
            if dependents := dependents_of_stored(plan):
                yield add_dependents, rows(dependents)
            yield count_more, rows(more_steps(plan))
            growing.discard(plan.workflow)


def _insert_unique(plan: Plan) -> Statements:
    """Insert a unique workflow, and the workflows within it."""
    (workflow, *within), (own, *given) = plan.workflows, rows_of_workflows(plan)
    while not (inserted := (yield insert_workflows, rows([own]))):
        # The existing workflow may have ended meanwhile.
        if found := (yield find_unique, {"key": str(workflow.unique_key)}):
            workflow.conflict = True
            workflow.id = found[0][0]
            return
    _fill(workflow, own, inserted[0][1])
    yield from _insert_workflows(within, given)


def _insert_workflows(workflows: Sequence[Workflow], given: Sequence[dict[str, Any]]) -> Statements:
    """Insert workflows that can't be duplicates with one statement."""
    if workflows:
        inserted = yield insert_workflows, rows(given)
        for workflow, row in zip(workflows, given, strict=True):
            _fill(workflow, row, inserted[0][1])


def _fill(workflow: Workflow, row: dict[str, Any], inserted_at: Any) -> None:
    """Give an inserted workflow the values of its row, and make it detached."""
    workflow.conflict = False
    own = values_of(workflow)
    for attribute in inspect(Workflow).column_attrs:
        own.setdefault(attribute.key, 0)
    own |= {
        **row,
        "state": "executing",
        "started_at": None,
        "completed_at": None,
        "inserted_at": validation.instant("inserted_at", inserted_at),
    }
    make_transient_to_detached(workflow)
    set_committed_value(workflow, "jobs", [draft.job for draft in workflow.graph.drafts.values()])
