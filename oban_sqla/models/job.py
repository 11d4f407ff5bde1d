"""`Job`: a row of `oban_jobs`, the unit of work that a worker processes."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Identity,
    Index,
    SmallInteger,
    Text,
    func,
    inspect,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import (
    Mapped,
    mapped_column,
    validates,
)

from ..errors import ObanError
from . import references, validation
from .instrumentation import new_instance, stored_instance, values_of
from .job_properties import JobProperties
from .metadata import Base
from .new_values import UNIQUE, new_values
from .recorded import recorded_value
from .state import JobState
from .types import Arguments, Meta, UTCDateTime, job_state
from .unique import Unique, UniqueMeta, unique_option

_TOLD_TO_STOP = "_told_to_stop"
_RESULTS = "_results"
GIVEN = "_given"
"""The key in `values_of(job)` of a duplicate's own values, before it became the existing job."""


class Job(JobProperties, Base):
    """A background job. Add it to a session: it commits or rolls back with your other objects.

    Build a job with a worker's `new()`, or with the name of its worker. Assigned values are
    checked: bad input raises `ValueError` or `TypeError` before a statement could fail.

    All instants are aware datetimes in UTC. The columns, defaults and checks are Oban's.
    """

    __tablename__ = "oban_jobs"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    state: Mapped[JobState] = mapped_column(job_state, server_default=JobState.AVAILABLE.value)
    queue: Mapped[str] = mapped_column(Text, server_default="default")
    worker: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default=sql("0"))
    """How often the job was claimed; a snooze or a graceful stop gives the attempt back."""
    max_attempts: Mapped[int] = mapped_column(SmallInteger, server_default=sql("20"))
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=sql("0"))
    """From 0 (runs first) to 9."""
    args: Mapped[dict[str, Any]] = mapped_column(Arguments, server_default="{}")
    meta: Mapped[dict[str, Any]] = mapped_column(Meta, server_default="{}")
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=sql("ARRAY[]::text[]"))
    errors: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]")
    """One entry for each failed attempt: `attempt`, `at` (ISO 8601, UTC) and `error`."""
    attempted_by: Mapped[list[str]] = mapped_column(
        ARRAY(Text), server_default=sql("ARRAY[]::text[]")
    )
    """The last claimer: the node's name, the producer's uuid, and "oban_sqla" for our nodes."""
    inserted_at: Mapped[datetime] = mapped_column(
        UTCDateTime, server_default=func.timezone("UTC", func.now())
    )
    scheduled_at: Mapped[datetime] = mapped_column(
        UTCDateTime, server_default=func.timezone("UTC", func.now())
    )
    attempted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    cancelled_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    discarded_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    if TYPE_CHECKING:
        # Not `Workflow`: no floor imports from one above it, not even for type checkers.
        workflow: Mapped[Any]
        """The `Workflow` of a step, or `None`: a view-only relationship that workflows add."""

    __table_args__ = (
        CheckConstraint("attempt >= 0 AND attempt <= max_attempts", name="attempt_range"),
        CheckConstraint("char_length(queue) > 0", name="queue_length"),
        CheckConstraint("char_length(worker) > 0", name="worker_length"),
        CheckConstraint("max_attempts > 0", name="positive_max_attempts"),
        CheckConstraint("priority >= 0", name="non_negative_priority"),
        Index(
            "oban_jobs_state_queue_priority_scheduled_at_id_index",
            state,
            queue,
            priority,
            scheduled_at,
            id,
            postgresql_with={"fillfactor": 90},
        ),
        Index(
            "oban_jobs_staging_index",
            scheduled_at,
            id,
            postgresql_include=["queue"],
            postgresql_where=sql("state IN ('scheduled', 'retryable')"),
        ),
        Index(
            "oban_jobs_completed_at_index",
            completed_at,
            postgresql_where=sql("state = 'completed'"),
        ),
        Index(
            "oban_jobs_cancelled_at_index",
            cancelled_at,
            postgresql_where=sql("state = 'cancelled'"),
        ),
        Index(
            "oban_jobs_discarded_at_index",
            discarded_at,
            postgresql_where=sql("state = 'discarded'"),
        ),
        Index(
            "oban_sqla_jobs_self_index",
            sql("(args -> 'self')"),
            postgresql_using="hash",
            postgresql_where=sql("(args -> 'self') IS NOT NULL"),
        ),
    )
    # The INSERT returns ids and times that the server makes, so no SELECT reads them later. With
    # `True`, the UPDATE of a partly loaded job would send a SELECT, too.
    __mapper_args__ = {"eager_defaults": "auto"}  # noqa: RUF012 - declarative reads it

    def __init__(
        self,
        worker: str,
        args: Mapping[str, Any] | None = None,
        *,
        queue: str = "default",
        priority: int = 0,
        max_attempts: int = 20,
        tags: Iterable[str] = (),
        meta: Mapping[str, Any] | None = None,
        scheduled_at: datetime | None = None,
        state: JobState | None = None,
        unique: Unique | bool | None = None,
    ) -> None:
        """Create a new job: `scheduled` if a time is given, otherwise `available`.

        unique: when the job is a duplicate of an existing job; `True` stands for `Unique()`.
        """
        given = {
            "worker": worker,
            "args": {} if args is None else args,
            "queue": queue,
            "priority": priority,
            "max_attempts": max_attempts,
            "tags": tags,
            "meta": {} if meta is None else meta,
        }
        kept = {field: RULES[field](value) for field, value in given.items()}
        if state is not None:
            kept["state"] = validation.state(state)
        values_of(self).update(new_values(kept, scheduled_at, unique_option(unique)))

    @validates("state", "worker", "queue", "args", "tags", "priority", "max_attempts")
    def _check(self, field: str, value: object) -> object:
        return RULES[field](value)

    @validates("meta")
    def _check_meta(self, field: str, value: object) -> object:
        meta: Any = RULES[field](value)
        state, values = inspect(self), values_of(self)
        # session.merge() creates a pending job, and copies the columns of the given job.
        if state.pending and isinstance(value, UniqueMeta):
            values.setdefault(UNIQUE, value.unique)
        return UniqueMeta(meta, values[UNIQUE]) if not state.key and UNIQUE in values else meta

    @validates("inserted_at", "scheduled_at")
    def _check_instant(self, field: str, value: object) -> datetime:
        return validation.instant(field, value)

    @validates("attempted_at", "cancelled_at", "completed_at", "discarded_at")
    def _check_mark(self, field: str, value: object) -> datetime | None:
        return None if value is None else validation.instant(field, value)

    def cancelled(self) -> bool:
        """Whether this job was cancelled while its worker processes it, as in Oban.

        Call it on the job that `process` was given, in any thread. For all other jobs it returns
        false: see their `state`. A long worker can check this, and return `Cancel(reason)`. A
        worker that returns normally completes the job, although it was cancelled.
        """
        return _TOLD_TO_STOP in values_of(self)

    async def results(self) -> dict[str, Any]:
        """The values that the deps of this step have recorded, by the names of the deps.

        Call it on the job that `process` was given. Deps without a recorded value are left out.
        `ObanError` for all other jobs.
        """
        read: ReadResults | None = values_of(self).get(_RESULTS)
        if read is None:
            raise ObanError(f"{self!r} has no results(): only the job of a running step has them")
        return await read(self)

    @property
    def conflict(self) -> bool:
        """Whether the job was a duplicate when it was enqueued, and became the existing job."""
        return GIVEN in values_of(self)

    @property
    def recorded(self) -> Any:
        """The value that the worker returned as `Record(value)`; `None` if there is none.

        `ValueError` for a value that Oban Pro or oban-py recorded, as an Erlang term.
        """
        return recorded_value(self.meta, self)

    def __repr__(self) -> str:
        # A repr must not send a SELECT, so it shows only loaded columns. The identity has the id
        # of an expired job.
        state = inspect(self)
        loaded = {**state.dict, "id": state.identity[0]} if state.identity else state.dict
        shown = ("id", "worker", "queue", "state", "attempt")
        known = (f" {key}={loaded[key]}" for key in shown if key in loaded)
        return f"<Job{''.join(known)}>"


COLUMNS = tuple(Job.__table__.columns.keys())
"""The names of the columns, in the order of the table."""


UNSET = ("attempted_at", "cancelled_at", "completed_at", "discarded_at")
"""Columns that are NULL in a new row. They have to be set on a detached job, which can't load."""

BY_ROW = ("id", "inserted_at", *UNSET)
"""Columns that a job does not have before its row is inserted."""


def new(
    checked: Mapping[str, Any], scheduled_at: datetime | None, unique: Unique | None = None
) -> Job:
    """Create a new job from checked values: `Job(...)` without its checks."""
    job = new_instance(Job)
    values_of(job).update(new_values(checked, scheduled_at, unique))
    return job


def new_alike(shared: Mapping[str, Any], args: object, tags: Iterable[str]) -> Job:
    """`new` for a job that differs from others of its worker by its arguments only.

    It takes half of the time of `new` with a mapping of all values.
    """
    job = new_instance(Job)
    values = values_of(job)
    values.update(shared)
    values["args"] = args
    # Each job has its own, since the user may change them in place.
    values["tags"] = [*tags]
    values["meta"] = {}
    values["errors"] = []
    values["attempted_by"] = []
    return job


def detached(values: Mapping[str, Any]) -> Job:
    """A stored job, in no session: all its columns are loaded, and it can be added to a session."""
    return stored_instance(Job, values, values["id"])


ReadResults: TypeAlias = Callable[[Job], Awaitable[dict[str, Any]]]
"""Reads the values of the steps for which a job has waited."""


def give_results(job: Job, read: ReadResults) -> None:
    """Have `job.results()` read the values of other steps by `read`.

    `read` must not refer to the job: only the garbage collector would free such jobs.
    """
    values_of(job)[_RESULTS] = read


def tell_to_stop(job: Job) -> None:
    """Make `job.cancelled()` return true."""
    values_of(job)[_TOLD_TO_STOP] = True


RULES: Mapping[str, Callable[[object], object]] = {
    "state": validation.state,
    "worker": validation.worker_name,
    "queue": validation.queue_name,
    "args": partial(references.arguments, "args"),
    "meta": partial(validation.json_object, "meta"),
    "tags": validation.tag_list,
    "priority": validation.priority,
    "max_attempts": validation.max_attempts,
}
"""The check of each column, except instants. Each check returns the value to store."""
