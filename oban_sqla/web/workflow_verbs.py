"""The actions on workflows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement

from ..workflows.workflow import Workflow
from .words import Verb


@dataclass(frozen=True, slots=True)
class FlowVerb(Verb):
    """An action on workflows."""

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


FLOW_VERBS: Mapping[str, FlowVerb] = {
    verb.name: verb
    for verb in (
        FlowVerb(
            "retry",
            "retried",
            "retry",
            "These steps run again. Completed steps do not.",
            Workflow.discarded + Workflow.cancelled > 0,
            "that failed or were cancelled",
        ),
        FlowVerb(
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
