"""Workers that are mapped classes: each job belongs to a row, which processes it as `self`."""

from collections.abc import Mapping
from datetime import date
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict
from uuid import UUID

from sqlalchemy import ColumnElement, TypeDecorator, func, inspect, type_coerce
from sqlalchemy import literal_column as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import (
    InstrumentedAttribute,
    Mapper,
    QueryableAttribute,
    foreign,
    relationship,
    remote,
)

from ..import_path import origin
from ..models import Job, validation
from ..models.json_types import is_mapped, kind_of
from ..models.keys import key_names
from ..models.notation import KEY, MODEL
from ..models.references import InstanceReference
from .option import Option

SELF = "self"
"""The argument of a job that refers to its row."""

Lock = Literal["update", "skip"]
"""How the row is locked: wait for another lock on it, or snooze the job for a second instead."""


def _lock(value: object) -> Lock:
    if value != "update" and value != "skip":
        raise ValueError(f"lock must be 'update' or 'skip', not {validation.show(value)}")
    return value


class RowOptions(TypedDict, total=False):
    """The options of a worker that is a mapped class."""

    lock: Annotated[
        Lock | None,
        Option(
            'How the row is locked while it is processed: `"update"` waits for another lock on'
            ' it, `"skip"` snoozes the job for a second instead.',
            _lock,
        ),
    ]


if TYPE_CHECKING:
    class_or_row = classmethod
else:

    class class_or_row(classmethod):  # noqa: N801 - as classmethod is written
        """A class method that gets the row instead of the class if it is called on a row."""

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is not None and is_mapped(type(instance)):
                return MethodType(self.__func__, instance)
            return super().__get__(instance, owner)


def arguments(target: Any, args: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The arguments of a job of a worker class, or of a row, which is added as `self`.

    `TypeError` if a model is called without a row; `ValueError` for an own argument `self`.
    """
    if isinstance(target, type):
        if is_mapped(target):
            raise TypeError(
                f"{target.__qualname__} is a model: each of its jobs belongs to a row, so call"
                " new() or enqueue() on an instance"
            )
        return args
    given = {} if args is None else args
    if isinstance(given, Mapping):
        if SELF in given:
            raise ValueError(f"args[{SELF!r}] is the row itself; give the argument another name")
        return {SELF: InstanceReference(target, base(type(target))), **given}
    return given  # invalid: the check of arguments raises the error


def relate(cls: type) -> None:
    """Add `jobs` to a model, the view-only relationship to the jobs of its rows.

    A model that has an attribute `jobs` keeps it. A model gets no relationship if Python and
    PostgreSQL write its key differently, as with a time, an enum or a `Decimal`.
    """
    mapper: Mapper[Any] = inspect(cls)
    if not _has_jobs(mapper) and all(map(_is_written_alike, mapper.primary_key)):
        mapper.add_property(
            "jobs",
            relationship(
                Job,
                primaryjoin=partial(_is_about, cls),
                viewonly=True,
                uselist=True,
                order_by=Job.id,
            ),
        )


def base(cls: type) -> type:
    """The root of an inheritance. Jobs refer to rows by it, so all classes find the same jobs.

    A concrete subclass has keys of its own, so it is a root itself.
    """
    mapper: Mapper[Any] = inspect(cls)
    while mapper.inherits is not None and not mapper.concrete:
        mapper = mapper.inherits
    return mapper.class_


def _has_jobs(mapper: Mapper[Any]) -> bool:
    jobs = getattr(mapper.class_, "jobs", None)
    # A concrete subclass has only a proxy for an attribute that its base maps.
    proxy = isinstance(jobs, QueryableAttribute) and not isinstance(jobs, InstrumentedAttribute)
    return jobs is not None and not (mapper.concrete and proxy)


def _is_about(cls: type) -> ColumnElement[bool]:
    root = base(cls)
    mapper: Mapper[Any] = inspect(root)
    key: list[Any] = []
    for name, column in zip(key_names(root), mapper.primary_key, strict=True):
        key += [name, column]
    about = func.jsonb_build_object(MODEL, origin(root), KEY, func.jsonb_build_object(*key))
    return remote(foreign(Job.args)).op("->")(sql(f"'{SELF}'")) == type_coerce(about, JSONB)


def _is_written_alike(column: ColumnElement[Any]) -> bool:
    alike = (int, str, bool, UUID, date)
    return not isinstance(column.type, TypeDecorator) and kind_of(column.type) in alike
