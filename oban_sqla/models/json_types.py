"""Convert values to JSON and back by their types: times, `UUID`, `Decimal`, enums, sets, models."""

import json
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import PurePath
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

from cattrs.preconf.json import make_converter
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeEngine

_ADDRESSES = (
    *(IPv4Address, IPv4Interface, IPv4Network),
    *(IPv6Address, IPv6Interface, IPv6Network),
)
# `date` includes its subclass `datetime`.
_LEAVES = (date, time, timedelta, UUID, Decimal, Enum, bytes, PurePath, *_ADDRESSES)
# Collections that JSON stores as a list.
_COLLECTIONS = (tuple, set, frozenset)


def needed(kind: Any) -> bool:
    """Whether values of this type, such as `list[UUID] | None`, need a conversion."""
    origin = get_origin(kind)
    if origin is Literal or origin in _COLLECTIONS:
        return True
    if origin is not None or not isinstance(kind, type):
        return any(map(needed, get_args(kind)))
    if issubclass(kind, (*_LEAVES, *_COLLECTIONS)):
        return True
    return is_dataclass(kind) or is_mapped(kind) or _is_pydantic(kind)


def possible(kind: Any) -> bool:
    """Whether the type determines the conversion; `UUID | Decimal`, for example, does not."""
    try:
        _converter.get_structure_hook(kind)
        _converter.get_unstructure_hook(kind)
    except Exception:
        return False
    return True


def to_json(value: object, kind: Any) -> Any:
    """Convert a value to JSON, except mapped instances in it. Raises if it is not of the type."""
    return _converter.unstructure(value, kind)


def from_json(value: object, kind: Any) -> Any:
    """Convert JSON to a value of the type. Raises if that is impossible."""
    return _converter.structure(value, kind)


def kind_of(type_: TypeEngine[Any]) -> type | None:
    """The Python type of a column's type; `None` if the column's type does not declare it."""
    try:
        return type_.python_type
    except NotImplementedError:
        return None


def is_mapped(kind: Any) -> bool:
    """Whether `kind` is a mapped class."""
    # inspect() would take a tenth of the time of a new job.
    return isinstance(kind, type) and isinstance(vars(kind).get("__mapper__"), Mapper)


def _is_pydantic(kind: Any) -> bool:
    # Recognized by its methods, since pydantic may not be installed.
    return isinstance(kind, type) and all(
        hasattr(kind, method) for method in ("model_dump", "model_validate")
    )


def _is_fixed_tuple(kind: Any) -> bool:
    items = get_args(kind)
    return get_origin(kind) is tuple and bool(items) and items[-1] is not Ellipsis


def _fixed_tuple(kind: Any) -> Callable[[Any], list[Any]]:
    kinds = get_args(kind)

    def unstructure(value: Any) -> list[Any]:
        if len(value) != len(kinds):
            raise ValueError(f"the tuple has {len(value)} items, not {len(kinds)}")
        return [_converter.unstructure(item, own) for item, own in zip(value, kinds, strict=True)]

    return unstructure


def _as_it_is(value: object, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not a {kind.__qualname__}")
    return value


def _in_order(items: Iterable[Any]) -> list[Any]:
    # Equal sets must give equal JSON, for unique jobs and for `args_contain()`.
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True, default=str))


_converter = make_converter(
    detailed_validation=False, unstruct_collection_overrides={AbstractSet: _in_order}
)
_converter.register_unstructure_hook(UUID, str)
_converter.register_structure_hook(UUID, lambda value, _: UUID(value))
_converter.register_unstructure_hook(Decimal, str)
_converter.register_structure_hook(Decimal, lambda value, _: Decimal(value))
_converter.register_unstructure_hook(time, time.isoformat)
_converter.register_structure_hook(time, lambda value, _: time.fromisoformat(value))
_converter.register_unstructure_hook(timedelta, timedelta.total_seconds)
_converter.register_structure_hook(timedelta, lambda value, _: timedelta(seconds=value))
for _address in _ADDRESSES:
    _converter.register_unstructure_hook(_address, str)
    _converter.register_structure_hook(_address, lambda value, kind: kind(value))
_converter.register_unstructure_hook_factory(_is_fixed_tuple, _fixed_tuple)
_converter.register_unstructure_hook(PurePath, str)
_converter.register_structure_hook(PurePath, lambda value, kind: kind(value))
_converter.register_unstructure_hook_func(_is_pydantic, lambda value: value.model_dump(mode="json"))
_converter.register_structure_hook_func(
    _is_pydantic, lambda value, kind: kind.model_validate(value)
)
_converter.register_unstructure_hook_func(is_mapped, lambda value: value)
_converter.register_structure_hook_func(is_mapped, _as_it_is)
