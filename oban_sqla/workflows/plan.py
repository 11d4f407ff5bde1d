"""`Plan`: how the steps that were added to a workflow are inserted."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, NamedTuple

from sqlalchemy import inspect

from ..models import Job, JobState, validation
from ..models.instrumentation import values_of
from ..workers.registry import find
from .draft import Draft, refuse_circle, refuse_stored
from .graph import STEP
from .values import From
from .workflow import Workflow, known_id

LATEST = datetime(9999, 12, 30, tzinfo=UTC)
"""The latest time for which a step can be scheduled."""


class Planned(NamedTuple):
    """A step that will be inserted."""

    draft: Draft
    workflow: Workflow
    path: Sequence[str]


class Stored(NamedTuple):
    """A stored step, on which a new step depends."""

    workflow_id: str
    name: str


class Plan:
    """The workflows and steps that one insertion adds.

    `ValueError` for an invalid graph: an unknown dep, or a circle.
    """

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.grows = inspect(workflow).has_identity
        """Whether the workflow is stored, so that the steps are added while it runs."""
        if not self.grows and workflow.parent_id is not None:
            raise ValueError(
                f"{workflow.label} is a part of another workflow: enqueue that one, or add it to"
                " the session"
            )
        self.workflows: list[Workflow] = []
        """The new workflows, the outermost one first."""
        self.steps: list[Planned] = []
        self.stored_deps: dict[Draft, list[Stored]] = {}
        """The stored steps for which new steps wait."""
        self._lay_out(workflow, ())
        if not self.steps and not self.grows:
            raise ValueError(f"{workflow.label}: it has no steps; add() some first")
        self._resolve(workflow, [])
        refuse_circle(workflow.label, [planned.draft for planned in self.steps])
        self._check_values()
        self._write_meta()

    @property
    def jobs(self) -> list[Job]:
        """The jobs of all new steps."""
        return [planned.draft.job for planned in self.steps]

    def suspend(self) -> None:
        """Suspend the steps that have deps, once these are known."""
        for draft, workflow, _ in self.steps:
            values = values_of(draft.job)
            begins_at = workflow.graph.begins_at
            if draft.delay is not None and draft.dep_ended_at is not None:
                due = min(draft.dep_ended_at + draft.delay, LATEST.timestamp())
                begins_at = datetime.fromtimestamp(due, UTC)
            if draft.waits_for or draft.waits_for_stored or draft.kind != STEP:
                values["state"] = JobState.SUSPENDED
            elif begins_at is not None and values["state"] is JobState.AVAILABLE:
                values["state"] = JobState.SCHEDULED
                values["scheduled_at"] = begins_at

    def _lay_out(self, workflow: Workflow, path: Sequence[str]) -> None:
        path = (*path, known_id(workflow))
        graph = workflow.graph
        if not inspect(workflow).has_identity:
            self.workflows.append(workflow)
            for draft in graph.drafts.values():
                refuse_stored(workflow.label, draft.name, draft.job)
            if not any(draft.kind == STEP for draft in graph.drafts.values()) and not graph.within:
                raise ValueError(
                    f"{workflow.label}: it needs a step beside those of add_last() and the"
                    " callbacks of a batch"
                )
        self.steps += [Planned(draft, workflow, path) for draft in graph.new]
        for within in graph.within.values():
            if not inspect(within.workflow).has_identity:
                self._lay_out(within.workflow, path)

    def _resolve(self, workflow: Workflow, outer: Sequence[Draft | Stored]) -> None:
        """Find the deps of the new steps of a workflow.

        `outer` are the steps for which the whole workflow waits.
        """
        graph = workflow.graph
        for draft in graph.new:
            draft.waits_for, draft.waits_for_stored, draft.dep_ended_at = {}, [], None
            for dep in draft.deps:
                for found in self._find(workflow, f"step {draft.name!r}", dep):
                    self._wait_for(draft, found)
            if not draft.deps and draft.kind == STEP:
                for found in outer:
                    self._wait_for(draft, found)
        for name, within in graph.within.items():
            if within.workflow in self.workflows:
                what = f"workflow {name!r}"
                around = [one for dep in within.deps for one in self._find(workflow, what, dep)]
                self._resolve(within.workflow, around or outer)

    def _wait_for(self, draft: Draft, found: Draft | Stored) -> None:
        if isinstance(found, Stored):
            deps = self.stored_deps.setdefault(draft, [])
            if found not in deps:
                deps.append(found)
        else:
            draft.waits_for[found] = None

    def _find(self, workflow: Workflow, what: str, dep: object) -> Iterator[Draft | Stored]:
        graph = workflow.graph
        name = self._name(workflow, what, dep)
        if name in graph.within:
            yield from _all_steps(graph.within[name].workflow)
        elif (draft := graph.drafts.get(name)) is not None and not draft.is_stored:
            if draft.kind != STEP:
                raise ValueError(
                    f"{workflow.label}: {what} waits for {name!r}, which runs when all steps have"
                    " ended"
                )
            yield draft
        elif self.grows and workflow is self.workflow:
            yield Stored(known_id(workflow), name)
        else:
            known = [*graph.drafts, *graph.within]
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise ValueError(
                f"{workflow.label}: {what} waits for {name!r}, which is no step; {hint}"
            )

    def _name(self, workflow: Workflow, what: str, dep: object) -> str:
        if isinstance(dep, str):
            return dep
        if isinstance(dep, Job) and (name := workflow.graph.names.get(id(dep))):
            return name
        for name, within in workflow.graph.within.items():
            if within.workflow is dep:
                return name
        if isinstance(dep, Job):
            meta = values_of(dep).get("meta") or {}
            if meta.get("workflow_id") == known_id(workflow) and isinstance(meta.get("name"), str):
                return str(meta["name"])
        if isinstance(dep, Job | Workflow):
            raise ValueError(
                f"{workflow.label}: {what} waits for {dep!r}, which is no part of it. Steps wait"
                " for steps of their own workflow: add() a new job to it, or a new workflow with"
                " add_workflow()"
            )
        raise TypeError(
            f"{workflow.label}: {what} may wait for names, jobs and workflows, not"
            f" {validation.show(dep)}"
        )

    def _check_values(self) -> None:
        """`ValueError` if a step takes a value from a step that is not among its deps."""
        for draft, workflow, _ in self.steps:
            worker = find(values_of(draft.job)["worker"])
            for parameter, provided in worker.provided.items() if worker else ():
                if not isinstance(provided, From):
                    continue
                deps = (*draft.waits_for, *self.stored_deps.get(draft, ()))
                if provided.step not in {one.name for one in deps}:
                    raise ValueError(
                        f"{workflow.label}: step {draft.name!r} takes {parameter!r} from step"
                        f" {provided.step!r}, for which it does not wait: add it with"
                        f" deps={provided.step!r}"
                    )

    def _write_meta(self) -> None:
        owners = {planned.draft: planned.workflow for planned in self.steps}
        for draft, workflow, _ in self.steps:
            id = known_id(workflow)
            deps = [(known_id(owners[one]), one.name) for one in draft.waits_for]
            deps += self.stored_deps.get(draft, ())
            own: dict[str, Any] = {"workflow_id": id, "name": draft.name}
            if workflow.name is not None:
                own["workflow_name"] = workflow.name
            if workflow.parent_id is not None:
                own["sup_workflow_id"] = workflow.parent_id
            own["deps"] = [name if of == id else [of, name] for of, name in deps]
            values = values_of(draft.job)
            values["meta"] = {**values["meta"], **own}


def _all_steps(workflow: Workflow) -> Iterator[Draft | Stored]:
    graph = workflow.graph
    for draft in graph.drafts.values():
        yield Stored(known_id(workflow), draft.name) if draft.is_stored else draft
    for within in graph.within.values():
        yield from _all_steps(within.workflow)
