"""Rows: the workflows and steps of a plan, as the parameters of the statements that insert them."""

from collections.abc import Mapping
from typing import Any

from ..models.instrumentation import values_of
from .graph import LAST, STEP
from .plan import Plan
from .workflow import Workflow


def rows_of_workflows(plan: Plan) -> list[dict[str, Any]]:
    """The new workflows, as a parameter for their statement."""
    rows = []
    for workflow in plan.workflows:
        around = [planned for planned in plan.steps if workflow.id in planned.path]
        own = [planned.draft for planned in around if planned.workflow is workflow]
        lasts = sum(draft.kind == LAST for draft in own)
        total = sum(planned.draft.kind in (STEP, LAST) for planned in around)
        rows.append(
            {
                "id": workflow.id,
                "name": workflow.name,
                "parent_id": workflow.parent_id,
                "meta": {
                    "queues": sorted({values_of(draft.job)["queue"] for draft in own}),
                    "workers": sorted({values_of(draft.job)["worker"] for draft in own}),
                    **workflow.meta,
                },
                "total": total,
                "open": total - lasts,
                "lasts": lasts,
                "untried": sum(draft.kind == STEP for draft in own),
                "unique_key": workflow.unique_key,
                **_counts(plan, workflow),
            }
        )
    return rows


def _counts(plan: Plan, workflow: Workflow) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for draft, owner, _ in plan.steps:
        if owner is workflow:
            state = str(values_of(draft.job)["state"])
            counts[state] = counts.get(state, 0) + 1
    return counts


def rows_of_steps(plan: Plan) -> list[dict[str, Any]]:
    """The new steps, whose jobs have ids, as a parameter for their statement."""
    dependents: dict[int, list[int]] = {}
    for draft, _, _ in plan.steps:
        for dep in draft.waits_for:
            dependents.setdefault(dep.job.id, []).append(draft.job.id)
    rows = []
    for draft, workflow, path in plan.steps:
        waits = len(draft.waits_for) + len(draft.waits_for_stored)
        rows.append(
            {
                "job_id": draft.job.id,
                "workflow_id": workflow.id,
                "path": list(path),
                "name": draft.name,
                "kind": draft.kind,
                "waits": waits if draft.kind == STEP else 1,
                "dependents": dependents.get(draft.job.id, []),
                **{f"on_{failure}": rule for failure, rule in draft.rules.items()},
                "delay": draft.delay,
            }
        )
    return rows
