"""`Reaction`: the changes of a model's rows to which a worker reacts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy import Column, inspect
from sqlalchemy.orm import Mapper

from ..models import Job, validation
from ..models.json_types import is_mapped
from ..models.keys import key_names
from ..models.notation import KEY, Reference
from ..models.references import InstanceReference, reference_to
from ..workers import model_worker
from ..workers.current_job import current_job
from ..workers.declaration import Declaration

Change: TypeAlias = Literal["insert", "update", "delete"]

ROW = "row"
"""The argument that refers to the row, for a worker that is not a model."""

DELETED = "key"
"""The argument that has the primary key of a deleted row."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """The changes of one model that enqueue a job of one worker."""

    declaration: Declaration
    model: type
    is_model: bool
    """Whether the worker is the model."""
    insert: bool
    update: frozenset[str] | bool
    """The attributes whose changes count; `True` for all attributes."""
    delete: bool
    when: Callable[[Any], object] | None
    names: frozenset[str]
    """The names in the row by which a limit or a rate counts."""

    def counts(self, change: Change, attributes: Callable[[str], bool]) -> bool:
        """Whether the worker reacts to a change. `attributes` says whether one was updated."""
        if change == "insert":
            return self.insert
        if change == "delete":
            return self.delete
        if isinstance(self.update, bool):
            return self.update
        return any(map(attributes, self.update))

    def job(self, change: Change, instance: object) -> Job:
        """The job for a changed instance."""
        if change != "delete":
            for name in self.counted_by:
                getattr(instance, name)  # loads an attribute that is expired
        return self._job(change, InstanceReference(instance, self._referred_to_as(type(instance))))

    def job_of(self, change: Change, cls: type, key: Sequence[Any]) -> Job:
        """The job for a changed row, by its primary key."""
        return self._job(change, reference_to(self._referred_to_as(cls), key))

    def is_own(self, key: object) -> bool:
        """Whether a job of this worker for the same row makes the change."""
        job = current_job()
        if job is None or job.worker not in (self.declaration.name, *self.declaration.aliases):
            return False
        row = job.args.get(self._row)
        return is_mapped(type(row)) and inspect(row).key == key

    @property
    def counted_by(self) -> Sequence[str]:
        """The attributes, besides the primary key, by which a limit or a rate counts."""
        if not self.names:
            return ()
        mapper: Mapper[Any] = inspect(self.model)
        return [one for one in self.names - {*key_names(self.model)} if one in mapper.attrs]

    @property
    def _row(self) -> str:
        return model_worker.SELF if self.is_model else ROW

    def _referred_to_as(self, cls: type) -> type:
        return model_worker.base(cls) if self.is_model else cls

    def _job(self, change: Change, reference: Reference) -> Job:
        about = {DELETED: reference[KEY]} if change == "delete" else {self._row: reference}
        return self.declaration.new_job({"change": change, **about}, {})


def reaction(cls: type, declaration: Declaration, *, is_model: bool) -> Reaction | None:
    """The reaction that a worker declares; `None` if it does not react to changes.

    `TypeError` or `ValueError` if `on` is not a model, if the model lacks an attribute, and for
    options that have no effect.

    is_model: whether the worker is a model.
    """
    name = cls.__qualname__
    if not (declaration.on_insert or declaration.on_update or declaration.on_delete):
        _refuse_without_change(name, declaration)
        return None
    _check_model(name, declaration, is_model)
    if declaration.when is not None and not callable(declaration.when):
        raise TypeError(
            f"when of {name} must be a function of the row, not {validation.show(declaration.when)}"
        )
    _check_unique(name, declaration)
    model: Any = cls if is_model else declaration.on
    return Reaction(
        declaration,
        model,
        is_model,
        declaration.on_insert,
        _attributes(name, model, declaration.on_update),
        declaration.on_delete,
        declaration.when,
        _names(declaration, model_worker.SELF if is_model else ROW, is_model),
    )


def _refuse_without_change(name: str, declaration: Declaration) -> None:
    if declaration.on is not None or declaration.when is not None:
        raise TypeError(
            f"{name} has on= or when=, but does not react to any change: add on_insert=True,"
            " on_update=('attribute', ...) or on_delete=True"
        )


def _check_model(name: str, declaration: Declaration, is_model: bool) -> None:
    """`TypeError` if there is no model to react to, or if it does not fit the worker."""
    if is_model and declaration.on is not None:
        raise TypeError(f"{name} is a model, and reacts to its own rows: leave on= out")
    if not is_model and not is_mapped(declaration.on):
        raise TypeError(
            f"{name} reacts to the rows of a model: name it with on=Model, not"
            f" {validation.show(declaration.on)}"
        )
    if is_model and declaration.on_delete:
        raise TypeError(
            f"{name} can't process a deleted row: declare another worker with on={name} and"
            " on_delete=True"
        )


def _check_unique(name: str, declaration: Declaration) -> None:
    """`ValueError` if all jobs of deleted rows would have the same unique key."""
    keys = declaration.unique.keys if declaration.unique else ()
    if declaration.on_delete and ROW in keys and DELETED not in keys:
        raise ValueError(
            f"unique of {name} has keys={keys!r}, but jobs of deleted rows have {DELETED!r} instead"
            f" of {ROW!r}, so all of them would be duplicates: add {DELETED!r} to the keys"
        )


def _names(declaration: Declaration, row: str, is_model: bool) -> frozenset[str]:
    """The names in the row, of a limit or rate that counts by a path to a value."""
    paths = [
        one.by.split(".")
        for one in (declaration.limit, declaration.rate)
        if one is not None and isinstance(one.by, str)
    ]
    names = [path[1] for path in paths if path[0] == row and len(path) > 1]
    if is_model:
        # A model may leave the argument with its row out.
        names += [path[0] for path in paths if path[0] != row]
    return frozenset(names)


def _attributes(name: str, model: type, given: bool | Sequence[str]) -> frozenset[str] | bool:
    if isinstance(given, bool):
        return given
    if isinstance(given, str) or not all(isinstance(one, str) for one in given):
        raise TypeError(
            f"on_update of {name} must be True or names of attributes, ('status', ...), not"
            f" {validation.show(given)}"
        )
    mapper: Mapper[Any] = inspect(model)
    # Leaves out the expressions of column_property(), which no UPDATE sets.
    columns = [key for key, column in mapper.columns.items() if isinstance(column, Column)]
    for one in given:
        if one not in columns:
            raise ValueError(
                f"on_update of {name} names {one!r}, but {model.__qualname__} has no such column;"
                f" there are {', '.join(columns)}"
            )
    return frozenset(given)
