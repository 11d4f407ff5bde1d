"""`From`: a step takes a value that one of its deps has recorded."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Executable, Text, and_, bindparam, cast, column, func, select
from sqlalchemy.dialects.postgresql import JSONB

from ..errors import ObanError
from ..models import Job, validation
from ..models.recorded import recorded_value
from ..workers.provided import Provided
from .step import Step


class From(Provided):
    """Marks a parameter of a job function that takes the recorded value of another step::

        @job()
        def load(n: int, rows: Annotated[list[str], From("extract")] = []): ...

        flow.add("load", load.new(3), deps="extract")

    The value is converted to the annotated type. The other step must be a dep of this step. If it
    has not recorded a value, the attempt fails. The default is only for type checkers.
    """

    def __init__(self, step: str) -> None:
        """step: the name of the other step."""
        if not isinstance(step, str) or not step:
            raise TypeError(f"From() takes the name of a step, not {validation.show(step)}")
        self.step = step

    def question(self, job: Job) -> tuple[Executable, Mapping[str, Any]]:
        """The statement that finds the value of the other step."""
        meta = job.meta
        for dep in meta.get("deps", ()):
            workflow_id, name = (meta["workflow_id"], dep) if isinstance(dep, str) else dep
            if name == self.step:
                return results_of([[workflow_id, name]])
        raise ObanError(
            f"{job!r} waits for no step {self.step!r}, from which it takes a value: add it to a"
            f" workflow with deps={self.step!r}"
        )

    def answer(self, job: Job, rows: Sequence[Any]) -> Any:
        """The recorded value of the other step."""
        for _, meta in rows:
            if meta.get("recorded"):
                return recorded_value(meta, f"step {self.step!r}")
        raise ObanError(
            f"step {self.step!r} recorded no value for {job!r}: return Record(value) there"
        )

    def __repr__(self) -> str:
        return f"From({self.step!r})"


def results_of(deps: Sequence[Sequence[str]]) -> tuple[Executable, Mapping[str, Any]]:
    """The statement that finds the name and meta of steps, given by workflow and name."""
    return _results(), {"deps": json.dumps([{"w": dep[0], "s": dep[1]} for dep in deps])}


@lru_cache(maxsize=1)
def _results() -> Executable:
    dep = (
        func.jsonb_to_recordset(cast(bindparam("deps", type_=Text), JSONB))
        .table_valued(column("w", Text), column("s", Text))
        .render_derived(name="dep", with_types=True)
    )
    return (
        select(Step.name, Job.meta)
        .select_from(dep)
        .join(Step, and_(Step.workflow_id == dep.c.w, Step.name == dep.c.s))
        .join(Job, Job.id == Step.job_id)
    )
