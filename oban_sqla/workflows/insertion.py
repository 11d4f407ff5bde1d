"""Insert workflows through any connection: the statements before and after those of their jobs."""

import json
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from sqlalchemy import inspect
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from ..enqueue import connections, references
from ..enqueue.connections import refuse_unknown
from ..enqueue.unique import Make, Parameters
from ..errors import ObanError
from ..models import validation
from ..models.instrumentation import values_of
from .draft import Draft
from .graph import LAST, STEP
from .plan import Plan, rows_of_steps, rows_of_workflows
from .statements import (
    add_dependents,
    count_more,
    find_unique,
    insert_steps,
    insert_workflows,
    lock_path,
    look_up,
    rows,
)
from .workflow import Workflow, growing

Statements: TypeAlias = Generator[tuple[Make, Parameters], Sequence[Sequence[Any]], None]
"""A generator that yields statements with parameters, and receives their rows."""


async def insert_through(workflow: Workflow, conn: object, prefix: str | None) -> None:
    """Insert a workflow through any connection except a session."""
    refuse_unknown(conn)
    plan = Plan(workflow)
    references.refuse_without_key(plan.jobs)
    await _run(before_jobs(plan), conn, prefix)
    if not workflow.conflict:
        await connections.insert_through(conn, plan.jobs, prefix)
        await _run(after_jobs(plan), conn, prefix)


async def _run(statements: Statements, conn: object, prefix: str | None) -> None:
    with suppress(StopIteration):
        step = next(statements)
        while True:
            step = statements.send(await connections.execute(conn, *step, prefix))


def before_jobs(plan: Plan) -> Statements:
    """The statements before the jobs of a plan. After a `conflict` of the workflow, stop.

    `ValueError` or `ObanError` for steps that can't be added to a running workflow.
    """
    if plan.grows:
        yield from _lock(plan)
        yield from _look_up(plan)
    plan.suspend()
    if plan.workflows:
        yield from _insert_workflows(plan)


def after_jobs(plan: Plan) -> Statements:
    """The statements after the jobs of a plan."""
    yield insert_steps, rows(rows_of_steps(plan))
    if plan.grows:
        if dependents := _dependents(plan):
            yield add_dependents, rows(dependents)
        yield count_more, rows(_more(plan))
        growing.discard(plan.workflow)


def before_all_jobs(plans: Sequence[Plan]) -> Statements:
    """The same for several plans: one statement for all that nothing can refuse."""
    for plan in plans:
        if not _is_simple(plan):
            yield from before_jobs(plan)
    simple = [plan for plan in plans if _is_simple(plan)]
    given: list[dict[str, Any]] = []
    for plan in simple:
        plan.suspend()
        plan.workflow.conflict = False
        given += rows_of_workflows(plan)
    if given:
        inserted = yield insert_workflows, rows(given)
        new = [one for plan in simple for one in plan.workflows]
        for one, values in zip(new, given, strict=True):
            _fill(one, values, inserted[0][1])


def after_all_jobs(plans: Sequence[Plan]) -> Statements:
    """The same for several plans."""
    if given := [row for plan in plans if _is_simple(plan) for row in rows_of_steps(plan)]:
        yield insert_steps, rows(given)
    for plan in plans:
        if not _is_simple(plan):
            yield from after_jobs(plan)


def _is_simple(plan: Plan) -> bool:
    return not plan.grows and plan.workflow.unique_key is None


def _insert_workflows(plan: Plan) -> Statements:
    given = rows_of_workflows(plan)
    workflow = plan.workflow
    workflow.conflict = False
    inserted: Sequence[Sequence[Any]] = ()
    while not inserted:
        inserted = yield insert_workflows, rows(given if plan.grows else given[:1])
        if not inserted:
            # The existing workflow may have ended meanwhile.
            found = yield find_unique, {"key": str(workflow.unique_key)}
            if found:
                workflow.conflict = True
                workflow.id = found[0][0]
                return
    if not plan.grows and given[1:]:
        yield insert_workflows, rows(given[1:])
    for one, values in zip(plan.workflows, given, strict=True):
        _fill(one, values, inserted[0][1])


def _fill(workflow: Workflow, values: dict[str, Any], inserted_at: Any) -> None:
    """Give a workflow the values of its row, and make it detached."""
    own = values_of(workflow)
    for attribute in inspect(Workflow).column_attrs:
        own.setdefault(attribute.key, 0)
    own |= {name: value for name, value in values.items() if name != "meta"}
    own |= {
        "meta": values["meta"],
        "state": "executing",
        "started_at": None,
        "completed_at": None,
        "inserted_at": validation.instant("inserted_at", inserted_at),
    }
    make_transient_to_detached(workflow)
    set_committed_value(workflow, "jobs", [draft.job for draft in workflow.graph.drafts.values()])


def _lock(plan: Plan) -> Statements:
    workflow = plan.workflow
    (id,) = inspect(workflow).identity or (None,)
    found = yield lock_path, {"id": id}
    states = {row[0]: row[1] for row in found}
    if id not in states:
        raise ObanError(
            f"{workflow.label} ({id}) is not there: it has ended, and was pruned; make another"
        )
    if (ended := states[id]) != "executing":
        raise ObanError(
            f"{workflow.label} ({id}) has ended, {ended}: steps can be added while it runs; make"
            " another workflow"
        )
    around = [*states][:-1]
    plan.steps[:] = [one._replace(path=[*around, *one.path]) for one in plan.steps]


def _look_up(plan: Plan) -> Statements:
    workflow = plan.workflow
    own = [draft.name for draft, owner, _ in plan.steps if owner is workflow]
    names = {*own, *(one.name for one in plan.look_ups)}
    found = yield look_up, {"id": inspect(workflow).identity[0], "names": json.dumps(sorted(names))}  # type: ignore[index]
    known = {row[0]: row[1:] for row in found}
    for name in own:
        if name in known:
            raise ValueError(f"{workflow.label} has a step {name!r} already")
    for draft, _, name in plan.look_ups:
        if name not in known:
            raise ValueError(
                f"{workflow.label}: step {draft.name!r} waits for {name!r}, which is no step"
            )
        job_id, kind, ended = known[name]
        if kind != STEP:
            raise ValueError(f"{workflow.label}: step {draft.name!r} can't wait for {name!r}")
        _wait_for_stored(workflow, draft, name, job_id, ended)


def _wait_for_stored(
    workflow: Workflow, draft: Draft, name: str, job_id: int, ended: str | None
) -> None:
    rule = "run" if ended == "completed" else draft.rules.get(f"{ended}", "run")
    if ended is not None and rule != "run":
        raise ObanError(
            f"{workflow.label}: step {draft.name!r} waits for {name!r}, which was {ended}: retry"
            " that one first, or add the step with on_failure='run'"
        )
    if ended is None and job_id not in draft.waits_for_stored:
        draft.waits_for_stored.append(job_id)


def _dependents(plan: Plan) -> list[dict[str, Any]]:
    found: dict[int, list[int]] = {}
    for draft, _, _ in plan.steps:
        for job_id in draft.waits_for_stored:
            found.setdefault(job_id, []).append(draft.job.id)
    return [{"job_id": job_id, "dependents": ids} for job_id, ids in found.items()]


def _more(plan: Plan) -> list[dict[str, Any]]:
    """The numbers of steps that are added to each stored workflow."""
    new = {workflow.id for workflow in plan.workflows}
    more: dict[str, dict[str, Any]] = {}
    for draft, workflow, path in plan.steps:
        for id in path:
            if id in new:
                continue
            own = id == workflow.id
            count = more.setdefault(id, {"id": id, "total": 0, "open": 0, "lasts": 0, "untried": 0})
            count["total"] += 1
            count["lasts" if own and draft.kind == LAST else "open"] += 1
            count["untried"] += own and draft.kind == STEP
    return list(more.values())
