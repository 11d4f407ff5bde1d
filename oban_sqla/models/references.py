"""Mapped instances among the arguments of a job.

Each instance is stored as a `Reference`: the name under which another process finds the class, and
the primary key by attribute names. Values of the key that JSON lacks are stored as strings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState

from ..errors import UnknownModelError
from ..import_path import importable, imported
from . import validation
from .json_types import is_mapped
from .keys import key_from_json, key_names, key_to_json
from .notation import KEY, MODEL, Reference


class InstanceReference(Reference):
    """A reference to an instance. While the instance is pending, its key is `None`."""

    __slots__ = ("_as", "awaited", "instance")

    def __init__(self, instance: object, as_: type | None = None) -> None:
        """Refer to an instance by its own class, or by `as_`, a class of its inheritance."""
        self._as = as_ or type(instance)
        super().__init__({MODEL: model_name(self._as), KEY: None})
        self.instance = instance
        self.awaited = False
        """Whether the flush stores the reference without a key now, and adds the key at its end."""
        self.resolve()

    @property
    def is_unknown(self) -> bool:
        return not (self.awaited or self.resolve())

    def resolve(self) -> bool:
        """Read the current key of the instance. Returns whether it has one."""
        identity = inspect(self.instance).identity
        self[KEY] = None if identity is None else key_to_json(self._as, identity)
        return identity is not None


class Arguments(dict[str, Any]):
    """Arguments that hold references to instances."""

    __slots__ = ("references",)

    def __init__(self, values: Mapping[str, Any], references: Sequence[InstanceReference]) -> None:
        super().__init__(values)
        self.references = references


def arguments(field: str, value: object) -> dict[str, Any]:
    """A deep, plain copy of arguments, in which references replace mapped instances.

    Existing references, such as those of a stored job, stay. `ValueError` for an instance whose
    class no other process could import. Other errors are those of `validation.json_object`.
    """
    if (flat := validation.flat_object(value)) is not None:
        return flat
    found: list[InstanceReference] = []
    plain = validation.json_object(field, value, partial(_refer, found))
    return Arguments(plain, found) if found else plain


def complete_arguments(field: str, value: object) -> dict[str, Any]:
    """`arguments()` for a statement that runs now: `ValueError` for an instance without a key."""
    plain = arguments(field, value)
    for reference in to_instances(plain):
        if not reference.resolve():
            raise ValueError(
                f"{field} refers to a {type(reference.instance).__qualname__} that has no key yet:"
                " flush it first"
            )
    return plain


def reference_to(cls: type, identity: Sequence[Any]) -> Reference:
    """The reference to a row, from its primary key as the mapper's tuple."""
    return Reference({MODEL: model_name(cls), KEY: key_to_json(cls, identity)})


def to_instances(args: object) -> Sequence[InstanceReference]:
    """The references to instances in a new job's arguments."""
    return args.references if type(args) is Arguments else ()


def replaced(args: Any, instance: Callable[[Reference], object]) -> Any:
    """A copy of arguments in which `instance(reference)` replaces each reference."""
    if isinstance(args, dict):
        return {key: _replaced(item, instance) for key, item in args.items()}
    return _replaced(args, instance)


def model(reference: Reference) -> type:
    """The class of a reference, if this process has imported it, else `UnknownModelError`.

    A row in the table never makes a process import anything.
    """
    name = reference[MODEL]
    found: Any = imported(name) if isinstance(name, str) else None
    if not is_mapped(found):
        raise UnknownModelError(
            f"this process has imported no mapped class {validation.show(name)}; import its"
            " module where the worker is defined, or with `oban-sqla start --import`"
        )
    kind: type = found
    return kind


def primary_key(reference: Reference, cls: type) -> tuple[Any, ...]:
    """The primary key of a reference as the mapper's tuple; `ValueError` if it is invalid."""
    given, names = reference[KEY], key_names(cls)
    if not isinstance(given, dict) or given.keys() != set(names):
        raise ValueError(
            f"{KEY} of a {reference[MODEL]} must hold {', '.join(names)}; it is"
            f" {validation.show(given)}"
        )
    return key_from_json(cls, given)


def show_reference(reference: Reference) -> str:
    """A reference as text for a message: `shop.models.Order id=7`."""
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


def _refer(found: list[InstanceReference], value: object) -> Reference | None:
    if isinstance(value, InstanceReference):
        found.append(value)
        return value
    if isinstance(value, Reference):
        return Reference(validation.json_object("a reference", value))
    if isinstance(inspect(value, raiseerr=False), InstanceState):
        reference = InstanceReference(value)
        found.append(reference)
        return reference
    return None


def _replaced(value: Any, instance: Callable[[Reference], object]) -> Any:
    if isinstance(value, Reference):
        return instance(value)
    if isinstance(value, dict):
        return {key: _replaced(item, instance) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, instance) for item in value]
    return value
