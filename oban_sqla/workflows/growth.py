"""Growth: steps that are added to a stored workflow while it runs."""

import json
from collections.abc import Sequence
from typing import Any

from ..errors import ObanError
from ..series import Series
from ..statements.execute import Make, Parameters
from .draft import Draft
from .graph import LAST, STEP
from .plan import Plan, Stored
from .statements import lock_path, look_up
from .workflow import Workflow, known_id


def lock_running(plan: Plan) -> Series[tuple[Make, Parameters], None]:
    """Lock the stored workflow of a plan, and the workflows around it.

    `ObanError` if the workflow does not run.
    """
    workflow, id = plan.workflow, known_id(plan.workflow)
    found = yield lock_path, {"id": id}
    states = {row[0]: row[1] for row in found}
    state = states.get(id)
    if state != "executing":
        ended = f"has ended, {state}" if state else "is not there: it has ended, and was pruned"
        raise ObanError(
            f"{workflow.label} ({id}) {ended}. Steps can be added while it runs: put"
            f" {_named(plan)} into another workflow"
        )
    around = [*states][:-1]
    plan.steps[:] = [one._replace(path=[*around, *one.path]) for one in plan.steps]


def find_stored_deps(plan: Plan) -> Series[tuple[Make, Parameters], None]:
    """Find the stored steps for which new steps wait.

    `ValueError` for an unknown dep, and for a name that a stored step has. `ObanError` for a dep
    that has failed.
    """
    workflow, id = plan.workflow, known_id(plan.workflow)
    names = {id: {draft.name for draft, owner, _ in plan.steps if owner is workflow}}
    for deps in plan.stored_deps.values():
        for dep in deps:
            names.setdefault(dep.workflow_id, set()).add(dep.name)
    known: dict[Stored, Sequence[Any]] = {}
    for of, wanted in names.items():
        found = yield look_up, {"id": of, "names": json.dumps(sorted(wanted))}
        known |= {Stored(of, name): values for name, *values in found}
    for draft, owner, _ in plan.steps:
        if owner is workflow and Stored(id, draft.name) in known:
            raise ValueError(f"{workflow.label} has a step {draft.name!r} already")
        for dep in plan.stored_deps.get(draft, ()):
            if dep not in known:
                raise ValueError(
                    f"{workflow.label}: step {draft.name!r} waits for {dep.name!r}, which is no"
                    " step"
                )
            job_id, kind, ended, ended_at = known[dep]
            if kind != STEP and dep.workflow_id == id:
                raise ValueError(
                    f"{workflow.label}: step {draft.name!r} can't wait for {dep.name!r}, which runs"
                    " when all steps have ended"
                )
            _wait_for_stored(workflow, draft, dep.name, job_id, ended, ended_at)


def _wait_for_stored(
    workflow: Workflow,
    draft: Draft,
    name: str,
    job_id: int,
    ended: str | None,
    ended_at: float | None,
) -> None:
    rule = "run" if ended == "completed" else draft.rules.get(f"{ended}", "run")
    if ended is not None and rule != "run":
        raise ObanError(
            f"{workflow.label}: step {draft.name!r} waits for {name!r}, which was {ended}: retry"
            " that one first, or add the step with on_failure='run'"
        )
    if ended is None:
        draft.waits_for_stored.append(job_id)
    elif ended_at is not None:
        draft.dep_ended_at = max(float(ended_at), draft.dep_ended_at or 0.0)


def dependents_of_stored(plan: Plan) -> list[dict[str, Any]]:
    """The new steps that wait for each stored step, as a parameter for their statement."""
    found: dict[int, list[int]] = {}
    for draft, _, _ in plan.steps:
        for job_id in draft.waits_for_stored:
            found.setdefault(job_id, []).append(draft.job.id)
    return [{"job_id": job_id, "dependents": ids} for job_id, ids in found.items()]


def more_steps(plan: Plan) -> list[dict[str, Any]]:
    """The numbers of steps that are added to each stored workflow, for their statement."""
    new = {known_id(workflow) for workflow in plan.workflows}
    more: dict[str, dict[str, Any]] = {}
    for draft, workflow, path in plan.steps:
        for id in path:
            if id in new:
                continue
            own = id == known_id(workflow)
            count = more.setdefault(id, {"id": id, "total": 0, "open": 0, "lasts": 0, "untried": 0})
            count["total"] += 1
            count["lasts" if own and draft.kind == LAST else "open"] += 1
            count["untried"] += own and draft.kind == STEP
    return list(more.values())


def _named(plan: Plan) -> str:
    names = [repr(planned.draft.name) for planned in plan.steps]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"step{'s' if len(names) > 1 else ''} {', '.join(names[:3])}{more}"
