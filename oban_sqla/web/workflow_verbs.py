"""The actions on workflows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement

from ..workflows.workflow import Workflow
from .job_verbs import Verb


@dataclass(frozen=True, slots=True)
class WorkflowVerb(Verb):
    """The words of an action on workflows, and the steps that it concerns."""

    possible: ColumnElement[bool]
    """Whether a workflow has steps that the action may change."""
    steps: str
    """The steps that the action changes, in words."""

    def count(self, row: Any) -> int:
        """The number of these steps in a workflow."""
        failed = row.discarded + row.cancelled
        if self.name == "retry":
            return int(failed)
        return int(row.total - row.completed - failed) if row.state == "executing" else 0


WORKFLOW_VERBS: Mapping[str, WorkflowVerb] = {
    verb.name: verb
    for verb in (
        WorkflowVerb(
            "retry",
            "retried",
            "retry",
            "These steps run again. Completed steps do not.",
            Workflow.discarded + Workflow.cancelled > 0,
            "that failed or were cancelled",
        ),
        WorkflowVerb(
            "cancel",
            "cancelled",
            "cancelled",
            "Waiting steps will not run, except the last steps that clean up. Executing steps are"
            " told to stop.",
            Workflow.state == "executing",
            "that have not ended",
        ),
    )
}
