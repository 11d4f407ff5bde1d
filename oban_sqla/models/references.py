"""Mapped instances among the arguments of a job.

They are stored as references, JSON that any language reads: `{"$model": "shop.models.Order",
"$key": {"id": 7}}`, the class as another process would import it, and the primary key by the names
of its attributes. What JSON has no word for in a key, such as a `UUID`, is a string in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import ColumnElement, inspect, tuple_
from sqlalchemy.orm import InstanceState, Mapper

from ..errors import UnknownModelError
from ..importable import importable, imported
from . import validation
from .conversion import from_json, is_mapped, kind_of, to_json

MODEL = "$model"
KEY = "$key"


class Reference(dict[str, Any]):
    """The reference to an instance, as JSON; while the instance is pending, its key is `None`."""

    __slots__ = ("_as", "instance")

    def __init__(self, instance: object, as_: type | None = None) -> None:
        """The reference to an instance, as one of its class or of another of its inheritance."""
        self._as = as_ or type(instance)
        super().__init__({MODEL: model_name(self._as), KEY: None})
        self.instance = instance
        self.resolve()

    def resolve(self) -> bool:
        """Take the key that the instance has now; whether it has one."""
        identity = inspect(self.instance).identity
        self[KEY] = None if identity is None else _key(self._as, identity)
        return identity is not None


class Arguments(dict[str, Any]):
    """Arguments that hold references."""

    __slots__ = ("references",)

    def __init__(self, values: Mapping[str, Any], references: Sequence[Reference]) -> None:
        super().__init__(values)
        self.references = references


def arguments(field: str, value: object) -> dict[str, Any]:
    """A deep, plain copy of arguments, where references stand for mapped instances.

    `ValueError` for an instance whose class no other process could import; otherwise the errors
    are those of `validation.json_object`.
    """
    found: list[Reference] = []
    plain = validation.json_object(field, value, partial(_refer, found))
    return Arguments(plain, found) if found else plain


def complete_arguments(field: str, value: object) -> dict[str, Any]:
    """The same, for what is sent at once: `ValueError` for an instance that has no key."""
    plain = arguments(field, value)
    for reference in references(plain):
        if not reference.resolve():
            raise ValueError(
                f"{field} refers to a {type(reference.instance).__qualname__} that has no key yet:"
                " flush it first"
            )
    return plain


def reference_to(cls: type, identity: Sequence[Any]) -> dict[str, Any]:
    """The reference to a row, by its primary key as the mapper has it."""
    return {MODEL: model_name(cls), KEY: _key(cls, identity)}


def references(args: object) -> Sequence[Reference]:
    """The references to instances that a new job's arguments hold."""
    return args.references if type(args) is Arguments else ()


def stored(args: object) -> Iterator[Mapping[str, Any]]:
    """The references among arguments as they are stored."""
    if isinstance(args, dict):
        if _is_reference(args):
            yield args
            return
        args = args.values()
    elif not isinstance(args, list):
        return
    for item in args:
        if isinstance(item, dict | list):
            yield from stored(item)


def replaced(args: Any, instance: Callable[[Mapping[str, Any]], object]) -> Any:
    """A copy of arguments with the instance of each reference in its place."""
    if isinstance(args, dict):
        if _is_reference(args):
            return instance(args)
        return {key: replaced(item, instance) for key, item in args.items()}
    if isinstance(args, list):
        return [replaced(item, instance) for item in args]
    return args


def model(reference: Mapping[str, Any]) -> type:
    """The class of a reference, among those that this process has imported.

    `UnknownModelError` if there is none: a row in the table never makes it import anything.
    """
    name = reference[MODEL]
    found: Any = imported(name) if isinstance(name, str) else None
    if not is_mapped(found):
        raise UnknownModelError(
            f"{validation.show(name)} is no mapped class that this process has imported; import its"
            " module where the worker is defined, or with `oban-sqla start --import`"
        )
    kind: type = found
    return kind


def identity(reference: Mapping[str, Any], cls: type) -> tuple[Any, ...]:
    """The primary key of a reference, as the mapper has it; `ValueError` for what is none."""
    given, names = reference[KEY], key_names(cls)
    if not isinstance(given, dict) or given.keys() != set(names):
        raise ValueError(
            f"{KEY} of a {reference[MODEL]} must hold {', '.join(names)}; it is"
            f" {validation.show(given)}"
        )
    columns = _mapper(cls).primary_key
    return tuple(_value(given[name], column) for name, column in zip(names, columns, strict=True))


def having(cls: type, identities: Collection[tuple[Any, ...]]) -> ColumnElement[bool]:
    """The condition that a row of a mapped class has one of these primary keys."""
    columns = _mapper(cls).primary_key
    if len(columns) == 1:
        return columns[0].in_([identity for (identity,) in identities])
    return tuple_(*columns).in_(list(identities))


def show(reference: Mapping[str, Any]) -> str:
    """A reference as a message shows it: `shop.models.Order id=7`."""
    key = reference[KEY]
    parts = (f"{name}={value}" for name, value in key.items()) if isinstance(key, dict) else ()
    return " ".join((str(reference[MODEL]), *parts))


def model_name(cls: type) -> str:
    """The stable name of a mapped class; `ValueError` if no other process could import it."""
    module = importable(cls.__module__)
    if module is None or "<locals>" in cls.__qualname__:
        raise ValueError(
            f"a {cls.__qualname__} can't be an argument: no other process could import its class;"
            " define it at the top of a module, or pass its key"
        )
    return f"{module}.{cls.__qualname__}"


@lru_cache(maxsize=1024)
def key_names(cls: type) -> tuple[str, ...]:
    """The attributes of the primary key of a mapped class."""
    mapper = _mapper(cls)
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)


def _refer(found: list[Reference], value: object) -> Reference | None:
    if isinstance(value, Reference):
        reference = value
    elif isinstance(inspect(value, raiseerr=False), InstanceState):
        reference = Reference(value)
    else:
        return None
    found.append(reference)
    return reference


def _is_reference(value: Mapping[str, Any]) -> bool:
    return len(value) == 2 and MODEL in value and KEY in value


def _mapper(cls: type) -> Mapper[Any]:
    mapper: Mapper[Any] = inspect(cls)
    return mapper


def _key(cls: type, identity: Sequence[Any]) -> dict[str, Any]:
    # As one of their own type, so that what the arguments may not hold may be in a key.
    values = [to_json(value, type(value)) for value in identity]
    return validation.json_object("the key", dict(zip(key_names(cls), values, strict=True)))


def _value(value: object, column: ColumnElement[Any]) -> object:
    kind = kind_of(column)
    return value if kind is None or isinstance(value, kind) else from_json(value, kind)
