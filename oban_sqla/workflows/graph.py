"""`Graph`: the steps and workflows that were added to a workflow."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import inspect

from .draft import Draft

LAST = "last"
STEP = "step"

W = TypeVar("W", bound="HasGraph")


class HasGraph(Protocol):
    """A workflow."""

    @property
    def graph(self) -> "Graph[Any]": ...


@dataclass(frozen=True, slots=True)
class Within(Generic[W]):
    """A workflow within another one."""

    workflow: W
    deps: Sequence[object]


@dataclass(slots=True)
class Graph(Generic[W]):
    """The steps and workflows that were added to a workflow."""

    drafts: dict[str, Draft] = field(default_factory=dict)
    within: dict[str, Within[W]] = field(default_factory=dict)
    _names: dict[int, str] = field(default_factory=dict)
    begins_at: datetime | None = None
    """When the steps without deps are due."""

    @property
    def new(self) -> list[Draft]:
        """The steps whose jobs have not been inserted."""
        return [draft for draft in self.drafts.values() if not draft.is_stored]

    @property
    def has_new(self) -> bool:
        """Whether there are steps or workflows that have not been inserted."""
        return bool(self.new) or any(
            not inspect(inner.workflow).has_identity for inner in self.within.values()
        )

    @property
    def size(self) -> int:
        """The number of steps, including those of workflows within. Callbacks are not counted."""
        own = sum(draft.kind in (STEP, LAST) for draft in self.drafts.values())
        return own + sum(inner.workflow.graph.size for inner in self.within.values())

    def forget_new(self) -> None:
        """Forget the steps and workflows that have not been inserted."""
        self.drafts = {name: one for name, one in self.drafts.items() if one.is_stored}
        self.within = {
            name: inner
            for name, inner in self.within.items()
            if inspect(inner.workflow).has_identity
        }
        self._names.clear()

    @property
    def names(self) -> dict[int, str]:
        """The names of the steps by the `id()` of their jobs."""
        if len(self._names) != len(self.drafts):
            self._names = {id(draft.job): name for name, draft in self.drafts.items()}
        return self._names

    def has_within(self, workflow: object) -> bool:
        """Whether a workflow is a part of this one, also as a part of a part."""
        inner = [within.workflow for within in self.within.values()]
        return any(one is workflow or one.graph.has_within(workflow) for one in inner)

    def refuse_twice(self, workflow: str, name: str) -> None:
        """`ValueError` if another step has the name."""
        if name in self.drafts or name in self.within:
            raise ValueError(f"{workflow}: it has a step {name!r} already; each needs its own name")
