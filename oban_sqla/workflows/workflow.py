"""`Workflow`: a graph of jobs, as an object of a session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import uuid4
from weakref import WeakSet

from sqlalchemy import ColumnElement, Index, Text, and_, func, inspect, literal_column
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, foreign, mapped_column, relationship, remote
from sqlalchemy.orm.attributes import flag_dirty

from ..clock import client_now
from ..models import Base, Job, validation
from ..models.instrumentation import values_of
from ..models.types import UTCDateTime
from .draft import Draft, OnFailure, listed, rules_of, step_job, step_name
from .graph import LAST, Graph, Within

Dep: TypeAlias = "str | Job | Workflow"
"""A step for which another step waits: its name, its job, or a workflow within the workflow."""

_NONE = sql("0")

growing: WeakSet[Workflow] = WeakSet()
"""The stored workflows with added steps that have not been inserted."""


class Workflow(Base):
    """A graph of jobs. Add it to a session: its steps commit or roll back with your objects::

        flow = Workflow("import", meta={"file": path})
        rows = flow.add("extract", extract.new(path))
        parts = [flow.add(f"load-{n}", load.new(n), deps=rows) for n in range(10)]
        flow.add("report", report.new(), deps=parts, on_failure="run")
        flow.add_last("cleanup", cleanup.new(path))
        session.add(flow)  # or: await oban.enqueue(flow)

    A step that waits for other steps is `suspended`. The outcome of the last dep makes the step
    available, in the same transaction. Oban Web shows workflows.
    """

    __tablename__ = "oban_workflows"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str | None] = mapped_column(Text)
    parent_id: Mapped[str | None] = mapped_column(Text)
    """The id of the workflow around this one."""
    state: Mapped[str] = mapped_column(Text, server_default="executing")
    """`executing` until all steps have ended; then `completed`, or `discarded` if a step was
    discarded, or `cancelled` if a step was cancelled or deleted."""
    meta: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
    suspended: Mapped[int] = mapped_column(server_default=_NONE)
    available: Mapped[int] = mapped_column(server_default=_NONE)
    scheduled: Mapped[int] = mapped_column(server_default=_NONE)
    executing: Mapped[int] = mapped_column(server_default=_NONE)
    retryable: Mapped[int] = mapped_column(server_default=_NONE)
    completed: Mapped[int] = mapped_column(server_default=_NONE)
    cancelled: Mapped[int] = mapped_column(server_default=_NONE)
    discarded: Mapped[int] = mapped_column(server_default=_NONE)
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """When the last step ended."""
    inserted_at: Mapped[datetime] = mapped_column(
        UTCDateTime, server_default=func.timezone("UTC", func.now())
    )
    total: Mapped[int] = mapped_column(server_default=_NONE)
    """The number of steps, including those of workflows within this one."""
    open: Mapped[int] = mapped_column(server_default=_NONE)
    """The number of steps that have not ended, without its own steps of `add_last`."""
    lasts: Mapped[int] = mapped_column(server_default=_NONE)
    """The number of steps of `add_last` that have not ended."""
    untried: Mapped[int] = mapped_column(server_default=_NONE)
    """The number of jobs whose first attempt has not ended."""
    unique_key: Mapped[str | None] = mapped_column(Text)
    """The name of a unique workflow, until it has ended."""

    jobs: Mapped[list[Job]] = relationship(
        Job, primaryjoin=lambda: _of_workflow(), viewonly=True, order_by=lambda: Job.id
    )
    """The jobs of this workflow's own steps."""

    __table_args__ = (
        Index(
            "oban_sqla_workflows_unique_index",
            unique_key,
            unique=True,
            postgresql_where=sql("unique_key IS NOT NULL"),
        ),
        Index(
            "oban_sqla_workflows_parent_index",
            parent_id,
            postgresql_where=sql("parent_id IS NOT NULL"),
        ),
    )

    def __init__(
        self,
        name: str | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        unique: bool = False,
        schedule_in: timedelta | float | None = None,
        on_failure: OnFailure = "cancel",
        ignore_cancelled: bool = False,
        ignore_discarded: bool = False,
        ignore_deleted: bool = False,
    ) -> None:
        """Make a workflow without steps.

        name: a name for people, and for `unique`.
        meta: any JSON object, for your own notes.
        unique: whether the workflow is a duplicate while another unique workflow of its name has
            not ended. A duplicate is not enqueued: its `conflict` is true, and its `id` is that of
            the existing workflow.
        schedule_in: seconds or a `timedelta` until the steps without deps are due.
        on_failure: the rule for a step when one of its deps is cancelled, discarded or deleted:
            `cancel` the step, `run` it, or `hold` it until the failed dep is retried. The
            `ignore_...` options, named as in Oban, mean `run`. Each step may override the rule.
        """
        if name is not None:
            step_name("Workflow", name)
        elif unique:
            raise ValueError("a unique workflow needs a name: Workflow('import', unique=True)")
        self.id = str(uuid4())
        self.name = name
        self.parent_id = None
        self.meta = {} if meta is None else validation.json_object("meta", meta)
        self.unique_key = name if unique else None
        self.rules = rules_of(
            on_failure,
            {
                "cancelled": ignore_cancelled,
                "discarded": ignore_discarded,
                "deleted": ignore_deleted,
            },
        )
        if schedule_in is not None:
            self.graph.begins_at = validation.moment_after("schedule_in", client_now(), schedule_in)

    rules: Mapping[str, OnFailure] = rules_of("cancel", {})
    """The rules for the steps, by the kind of failure of a dep."""

    conflict: bool = False
    """Whether the workflow was a duplicate when it was enqueued."""

    def add(
        self,
        name: str,
        job: Job,
        *,
        deps: Dep | Iterable[Dep] = (),
        after: timedelta | float | None = None,
        on_failure: OnFailure | None = None,
        ignore_cancelled: bool | None = None,
        ignore_discarded: bool | None = None,
        ignore_deleted: bool | None = None,
    ) -> Job:
        """Add a step, and return its job.

        deps: the steps for which this step waits: a name, a job, a workflow within this one, or an
            iterable of these.
        after: seconds or a `timedelta` from the end of the last dep until the step is due.
        on_failure: the rule when a dep fails, instead of that of the workflow.

        `ValueError` or `TypeError` if another step has the name, or if the job can't be a step.
        Unknown deps and circles are refused when the workflow is enqueued or flushed.
        """
        ignored = {
            "cancelled": ignore_cancelled,
            "discarded": ignore_discarded,
            "deleted": ignore_deleted,
        }
        rules = {**self.rules} if on_failure is None else {**rules_of(on_failure, {})}
        rules |= {
            f: "run" if ignore else "cancel" for f, ignore in ignored.items() if ignore is not None
        }
        delay = None if after is None else validation.delay("after", after).total_seconds()
        given = listed(deps)
        if delay is not None and not given:
            raise ValueError(
                f"{self.label}: step {name!r} comes after no other, so `after` has no beginning:"
                " give deps=, or the job a schedule_in="
            )
        return self._draft(name, job, deps=given, rules=rules, delay=delay)

    def add_last(self, name: str, job: Job) -> Job:
        """Add a step that runs when all other steps have ended, with any outcome."""
        return self._draft(name, job, kind=LAST)

    def add_workflow(
        self, name: str, workflow: Workflow, *, deps: Dep | Iterable[Dep] = ()
    ) -> Workflow:
        """Add another workflow as a part of this one, and return it.

        deps: the steps for which its first steps wait. A step that waits for `name` waits for all
            steps that the added workflow has by then.
        """
        step_name(self.label, name)
        self.graph.refuse_twice(self.label, name)
        if not isinstance(workflow, Workflow):
            raise TypeError(f"{self.label}: {name!r} must be a Workflow, not {workflow!r}")
        if inspect(workflow).has_identity or workflow.parent_id is not None:
            raise ValueError(
                f"{self.label}: {workflow.label} is enqueued already, or a part of another workflow"
            )
        if workflow.unique_key is not None:
            raise ValueError(
                f"{self.label}: {workflow.label} is unique, which no part of a workflow can be:"
                " make the whole unique"
            )
        if workflow is self or workflow.graph.has_within(self):
            raise ValueError(f"{self.label}: {workflow.label} can't be a part of itself")
        workflow.parent_id = known_id(self)
        self.graph.within[name] = Within(workflow, listed(deps))
        self._grow()
        return workflow

    def _draft(self, name: str, job: Job, **options: Any) -> Job:
        step_name(self.label, name)
        self.graph.refuse_twice(self.label, name)
        step_job(self.label, name, job)
        self.graph.drafts[name] = Draft(name, job, **options)
        # From now on, no other workflow takes the job.
        values = values_of(job)
        values["meta"] = {**values["meta"], "workflow_id": known_id(self), "name": name}
        self._grow()
        return job

    def _grow(self) -> None:
        if inspect(self).has_identity:
            growing.add(self)
            # Without a change of the workflow, the session would see nothing to flush.
            flag_dirty(self)

    @property
    def graph(self) -> Graph[Workflow]:
        """The steps and workflows that were added to this instance."""
        graph: Graph[Workflow] = vars(self).setdefault("_graph", Graph())
        return graph

    @property
    def label(self) -> str:
        """The name of the workflow in messages."""
        known = values_of(self).get("name")
        return "the workflow" if known is None else f"workflow {known!r}"

    @property
    def steps(self) -> dict[str, Job]:
        """The jobs of this workflow's own steps, by name."""
        stored = {job.meta["name"]: job for job in self.jobs} if inspect(self).has_identity else {}
        return {**stored, **{name: draft.job for name, draft in self.graph.drafts.items()}}

    @property
    def progress(self) -> tuple[int, int]:
        """The numbers of ended and of all steps, as of when the row was read."""
        if not inspect(self).has_identity:
            return 0, self.graph.size
        return self.total - self.open - self.lasts, self.total

    @property
    def recorded(self) -> Any:
        """The value that the last step with a recorded value has recorded; `None` if none has."""
        ends = [job for job in self.jobs if job.completed_at and job.meta.get("recorded")]
        ends.sort(key=lambda job: (job.completed_at, job.id))
        return ends[-1].recorded if ends else None

    @property
    def is_finished(self) -> bool:
        """Whether all steps have ended, as of when the row was read."""
        return self.state != "executing"

    def __repr__(self) -> str:
        loaded = {**values_of(self), "id": known_id(self)}
        shown = (f" {key}={loaded[key]!r}" for key in ("id", "name", "state") if key in loaded)
        return f"<Workflow{''.join(shown)}>"


def known_id(workflow: Workflow) -> str:
    """The id of a workflow, without the SELECT that `workflow.id` sends if it has expired."""
    state = inspect(workflow)
    return str(state.identity[0] if state.identity else state.dict["id"])


def _of_workflow() -> ColumnElement[bool]:
    # Written like the predicate of the index, so that the server uses the index.
    key: ColumnElement[str] = literal_column("'workflow_id'", Text)
    meta: Any = remote(foreign(Job.meta))
    return and_(Workflow.id == meta.op("->>", return_type=Text())(key), meta.op("?")(key))
