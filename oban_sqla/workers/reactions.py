"""What a worker reacts to: rows of a model that are inserted, updated or deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy import Column, inspect
from sqlalchemy.orm import Mapper

from ..models import Job, validation
from ..models.conversion import is_mapped
from ..models.references import KEY, Reference, reference_to
from . import rows
from .current_job import current_job
from .options import WorkerOptions

Change: TypeAlias = Literal["insert", "update", "delete"]

ROW = "row"
"""The argument that refers to the row, for a worker that is not the row itself."""

DELETED = "key"
"""The argument that is the primary key of a row that was deleted."""

OPTIONS = ("on", "on_insert", "on_update", "on_delete", "when")


@dataclass(frozen=True, slots=True)
class Reaction:
    """The changes of one model that enqueue a job of one worker."""

    options: WorkerOptions
    model: type
    is_self: bool
    """Whether the worker is the model."""
    insert: bool
    update: frozenset[str] | bool
    """The attributes whose change counts; `True` for all of them."""
    delete: bool
    when: Callable[[Any], object] | None

    def counts(self, change: Change, attributes: Callable[[str], bool]) -> bool:
        """Whether it reacts to a change, of an update to `attributes` that were changed."""
        if change == "insert":
            return self.insert
        if change == "delete":
            return self.delete
        if isinstance(self.update, bool):
            return self.update
        return any(map(attributes, self.update))

    def job(self, change: Change, instance: object) -> Job:
        """The job for an instance that was changed."""
        return self._job(change, Reference(instance, self._referred_to_as(type(instance))))

    def job_of(self, change: Change, cls: type, key: Sequence[Any]) -> Job:
        """The job for a row that was changed, by its primary key."""
        return self._job(change, reference_to(self._referred_to_as(cls), key))

    def is_own(self, key: object) -> bool:
        """Whether the change is made by a job of this worker about the very row."""
        job = current_job()
        if job is None or job.worker != self.options.name:
            return False
        row = job.args.get(self._row)
        return is_mapped(type(row)) and inspect(row).key == key

    @property
    def _row(self) -> str:
        return rows.SELF if self.is_self else ROW

    def _referred_to_as(self, cls: type) -> type:
        return rows.base(cls) if self.is_self else cls

    def _job(self, change: Change, reference: Mapping[str, Any]) -> Job:
        about = {DELETED: reference[KEY]} if change == "delete" else {self._row: reference}
        return self.options.new_job({"change": change, **about}, {})


def reaction(
    cls: type,
    *,
    on: type | None = None,
    on_insert: bool = False,
    on_update: bool | Sequence[str] = False,
    on_delete: bool = False,
    when: Callable[[Any], object] | None = None,
) -> Reaction | None:
    """What a worker has declared to react to; `None` if it is nothing.

    `TypeError` or `ValueError` for what is no model, or not of it, and for what would do nothing.
    """
    name = cls.__qualname__
    is_self = is_mapped(cls)
    if not (on_insert or on_update or on_delete):
        if on is not None or when is not None:
            raise TypeError(
                f"{name} says on= or when=, but not to what it reacts: add on_insert=True,"
                " on_update=('attribute', ...) or on_delete=True"
            )
        return None
    if is_self and on is not None:
        raise TypeError(f"{name} is a model, and reacts to its own rows: leave on= out")
    if not is_self and not is_mapped(on):
        raise TypeError(
            f"{name} reacts to the rows of a model: say which, on=Model, not {validation.show(on)}"
        )
    if is_self and on_delete:
        raise TypeError(
            f"{name} can't process a row that is deleted: declare a worker of its own, with"
            f" on={name} and on_delete=True"
        )
    if when is not None and not callable(when):
        raise TypeError(
            f"when of {name} must be a function of the row, not {validation.show(when)}"
        )
    model: Any = cls if is_self else on
    update = _attributes(name, model, on_update)
    for option, flag in (("on_insert", on_insert), ("on_delete", on_delete)):
        if not isinstance(flag, bool):
            raise TypeError(f"{option} must be True or False, not {validation.show(flag)}")
    options: WorkerOptions = vars(cls)["__oban__"]
    keys = options.unique.keys if options.unique else ()
    if on_delete and ROW in keys and DELETED not in keys:
        raise ValueError(
            f"unique of {name} has keys={keys!r}, but a job of a deleted row has {DELETED!r}"
            f" instead of {ROW!r}, so that all of them were duplicates: add it"
        )
    return Reaction(options, model, is_self, on_insert, update, on_delete, when)


def _attributes(name: str, model: type, given: bool | Sequence[str]) -> frozenset[str] | bool:
    if isinstance(given, bool):
        return given
    if isinstance(given, str) or not all(isinstance(one, str) for one in given):
        raise TypeError(
            f"on_update of {name} must be True or names of attributes, ('status', ...), not"
            f" {validation.show(given)}"
        )
    mapper: Mapper[Any] = inspect(model)
    # Without the expressions of column_property(), which no UPDATE sets.
    columns = [key for key, column in mapper.columns.items() if isinstance(column, Column)]
    for one in given:
        if one not in columns:
            raise ValueError(
                f"on_update of {name} names {one!r}, but {model.__qualname__} has no such column;"
                f" there are {', '.join(columns)}"
            )
    return frozenset(given)
