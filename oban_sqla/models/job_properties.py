"""Properties of a job that work on an instance and in SQL."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Interval, and_, case, literal, null, type_coerce
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped

from ..clock import client_now, database_now
from ..config.worker_names import names_of
from . import references, validation
from .state import FINISHED, STAGEABLE, JobState
from .types import Arguments

_WAITING = (JobState.AVAILABLE, *STAGEABLE)


class JobProperties:
    """Attributes of `Job` beside its columns, as in `select(Job).where(Job.is_due)`."""

    state: Mapped[JobState]
    worker: Mapped[str]
    args: Mapped[dict[str, Any]]
    errors: Mapped[list[dict[str, Any]]]
    scheduled_at: Mapped[datetime]
    attempted_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    discarded_at: Mapped[datetime | None]

    @hybrid_property
    def is_finished(self) -> bool:
        """Whether the job is completed, discarded or cancelled."""
        return self.state in FINISHED

    @is_finished.inplace.expression
    @classmethod
    def _is_finished(cls) -> ColumnElement[bool]:
        return cls.state.in_(FINISHED)

    @hybrid_property
    def is_due(self) -> bool:
        """Whether the job is due, and waits only for a producer.

        On an instance, the client's clock decides; in a statement, the database's clock.
        """
        return self.state in _WAITING and self.scheduled_at <= client_now()

    @is_due.inplace.expression
    @classmethod
    def _is_due(cls) -> ColumnElement[bool]:
        return and_(cls.state.in_(_WAITING), cls.scheduled_at <= database_now())

    @hybrid_property
    def failing(self) -> bool:
        """Whether an attempt has failed, and the job has not ended."""
        return bool(self.errors) and self.state not in FINISHED

    @failing.inplace.expression
    @classmethod
    def _failing(cls) -> ColumnElement[bool]:
        return and_(cls.errors != literal([], JSONB), ~cls.state.in_(FINISHED))

    @hybrid_property
    def waited(self) -> timedelta | None:
        """The time from when the job was due to its last claim; `None` before the first claim."""
        return None if self.attempted_at is None else self.attempted_at - self.scheduled_at

    @waited.inplace.expression
    @classmethod
    def _waited(cls) -> ColumnElement[timedelta | None]:
        return type_coerce(cls.attempted_at - cls.scheduled_at, Interval)

    @hybrid_property
    def duration(self) -> timedelta | None:
        """How long the last attempt took; `None` unless the job is completed or discarded."""
        ended = {
            JobState.COMPLETED: self.completed_at,
            JobState.DISCARDED: self.discarded_at,
        }.get(self.state)
        return None if ended is None or self.attempted_at is None else ended - self.attempted_at

    @duration.inplace.expression
    @classmethod
    def _duration(cls) -> ColumnElement[timedelta | None]:
        return case(
            (cls.state == JobState.COMPLETED, cls.completed_at - cls.attempted_at),
            (cls.state == JobState.DISCARDED, cls.discarded_at - cls.attempted_at),
            else_=null(),
        )

    @classmethod
    def for_worker(cls, *workers: Any) -> ColumnElement[bool]:
        """The condition that a job belongs to one of the workers: classes, job functions or names.

        A class or function includes its aliases. `TypeError` or `ValueError` for anything else.
        """
        named = [name for worker in workers for name in names_of(worker)]
        names = [validation.worker_name(name) for name in named]
        return cls.worker.in_(names) if len(names) != 1 else cls.worker == names[0]

    @classmethod
    def args_contain(cls, args: Mapping[str, Any]) -> ColumnElement[bool]:
        """The condition that a job's arguments contain these, as PostgreSQL's `@>` defines it.

        A mapped instance is compared by its key. Without the index that
        `op.create_oban_args_index()` makes, the server reads all jobs. `TypeError` or `ValueError`
        for arguments that are not JSON.
        """
        return cls.args.op("@>")(literal(references.complete_arguments("args", args), Arguments))
