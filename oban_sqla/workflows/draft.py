"""`Draft`: a step that was added to a workflow, and its checks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Literal, TypeAlias, get_args

from sqlalchemy import inspect

from ..models import Job, chain, validation
from ..models.instrumentation import values_of
from ..models.unique_job import may_hold_key

OnFailure: TypeAlias = Literal["cancel", "run", "hold"]
"""The rule for a step when a step that it waits for is cancelled, discarded or deleted."""

FAILURES = ("cancelled", "discarded", "deleted")


def rules_of(on_failure: object, ignored: Mapping[str, bool]) -> Mapping[str, OnFailure]:
    """The rule for each kind of failure of a dep.

    `ignored` are the options named as in Oban. `ValueError` for another `on_failure`.
    """
    rules: tuple[OnFailure, ...] = get_args(OnFailure)
    if on_failure not in rules:
        choices = ", ".join(map(repr, rules))
        raise ValueError(f"on_failure must be one of {choices}, not {validation.show(on_failure)}")
    rule: OnFailure = rules[rules.index(on_failure)]
    return {failure: "run" if ignored.get(failure) else rule for failure in FAILURES}


@dataclass(eq=False, slots=True)
class Draft:
    """A step that was added to a workflow."""

    name: str
    job: Job
    kind: str = "step"
    deps: Sequence[object] = ()
    rules: Mapping[str, OnFailure] = field(default_factory=lambda: rules_of("run", {}))
    delay: float | None = None
    waits_for: "dict[Draft, None]" = field(default_factory=dict)
    """The deps that are inserted together with this step."""
    waits_for_stored: list[int] = field(default_factory=list)
    """The jobs of the stored deps that have not ended."""
    dep_ended_at: float | None = None
    """When the last of the ended stored deps ended, in seconds of the epoch."""

    @property
    def is_stored(self) -> bool:
        """Whether the job was inserted. A rollback makes it new again."""
        return inspect(self.job).has_identity


def step_name(workflow: str, name: object) -> str:
    """Check the name of a step or a workflow; `TypeError` or `ValueError` if it is invalid."""
    if not isinstance(name, str):
        raise TypeError(f"{workflow}: the name must be a str, not {validation.show(name)}")
    if not name.strip():
        raise ValueError(f"{workflow}: the name is empty")
    validation.json_value(f"{workflow}: the name", name)
    return name


def step_job(workflow: str, name: str, job: object) -> Job:
    """Check the job of a step; `TypeError` or `ValueError` if it can't be one."""
    if not isinstance(job, Job):
        raise TypeError(
            f"{workflow}: step {name!r} needs a Job, such as Worker.new({{...}}) makes;"
            f" got {validation.show(job)}"
        )
    refuse_stored(workflow, name, job)
    if may_hold_key(job):
        raise ValueError(
            f"{workflow}: the job of step {name!r} is unique, so it might become a job outside of"
            " the workflow: make it with unique=False, and the workflow with unique=True"
        )
    meta = values_of(job)["meta"]
    if chain.ENTRY in meta:
        raise ValueError(
            f"{workflow}: the job of step {name!r} is in a chain, which might suspend it when its"
            " deps have ended: order the steps with deps=, or give the worker limit=Limit(1, ...)"
            " in place of chain="
        )
    if (other := meta.get("workflow_id")) is not None:
        raise ValueError(
            f"{workflow}: the job of step {name!r} is step {meta.get('name')!r} of workflow"
            f" {other!r}: make another with new()"
        )
    return job


def refuse_stored(workflow: str, name: str, job: Job) -> None:
    """`ValueError` if the job of a step was enqueued already."""
    if inspect(job).has_identity:
        raise ValueError(
            f"{workflow}: the job of step {name!r} was enqueued already: {job!r}. Make another with"
            " new(); the workflow enqueues it"
        )


def listed(deps: object) -> list[object]:
    """A list of deps that are given as one dep, or in an iterable."""
    if isinstance(deps, str) or not isinstance(deps, Iterable):
        return [deps]
    return list(deps)


def refuse_circle(workflow: str, drafts: Iterable[Draft]) -> None:
    """`ValueError` that names the steps of a circle, if there is one."""
    sorter = TopologicalSorter({draft: draft.waits_for for draft in drafts})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(repr(draft.name) for draft in error.args[1])
        raise ValueError(
            f"{workflow}: its steps wait for each other in a circle: {circle}"
        ) from None
