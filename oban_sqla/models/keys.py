"""Convert primary keys of mapped classes to JSON and back, by the types of their columns."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Dialect, TypeDecorator, inspect, tuple_, type_coerce
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeEngine, UserDefinedType

from . import validation
from .json_types import from_json, kind_of, to_json

# The methods of a custom type take a dialect, and may use its name or features.
_DIALECT: Dialect = PGDialect()  # type: ignore[no-untyped-call]


@lru_cache(maxsize=1024)
def key_names(cls: type) -> tuple[str, ...]:
    """The attributes of the primary key of a mapped class."""
    mapper = _mapper(cls)
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)


def key_to_json(cls: type, identity: Sequence[Any]) -> dict[str, Any]:
    """A primary key, given as the mapper's tuple, as JSON keyed by attribute names."""
    columns = _mapper(cls).primary_key
    values = [_to_json(value, column.type) for value, column in zip(identity, columns, strict=True)]
    for value, column in zip(values, columns, strict=True):
        # A session finds a row by a key that it can hash. The worker could not load this one.
        structured = isinstance(value, list | dict)
        if structured and not isinstance(_from_json(value, column.type), Hashable):
            raise TypeError(
                f"the key {column.name} of {cls.__qualname__} is of the type {column.type!r}, and"
                " can't be stored in a job: pass the values of the row instead"
            )
    return validation.json_object("the key", dict(zip(key_names(cls), values, strict=True)))


def key_from_json(cls: type, key: Mapping[str, Any]) -> tuple[Any, ...]:
    """The primary key as the mapper's tuple. Raises if a value does not fit its column."""
    columns = _mapper(cls).primary_key
    return tuple(
        _from_json(key[name], column.type)
        for name, column in zip(key_names(cls), columns, strict=True)
    )


def having(cls: type, identities: Collection[tuple[Any, ...]]) -> ColumnElement[bool]:
    """The condition that a row of a mapped class has one of these primary keys."""
    columns = [_with_variant(column) for column in _mapper(cls).primary_key]
    if len(columns) == 1:
        return columns[0].in_([identity for (identity,) in identities])
    return tuple_(*columns).in_(list(identities))


def _to_json(value: Any, type_: TypeEngine[Any]) -> Any:
    """The value as JSON. A custom type gives the value that it sends to the database."""
    type_ = type_.dialect_impl(_DIALECT)
    if isinstance(type_, TypeDecorator):
        if _overrides(type_, "process_bind_param"):
            value = type_.process_bind_param(value, _DIALECT)
        return _to_json(value, type_.impl_instance)
    if isinstance(type_, UserDefinedType) and (process := type_.bind_processor(_DIALECT)):
        value = process(value)
    # Converted by the value's own type: keys may have types that arguments may not have.
    return to_json(value, type(value))


def _from_json(value: Any, type_: TypeEngine[Any]) -> Any:
    type_ = type_.dialect_impl(_DIALECT)
    if isinstance(type_, TypeDecorator):
        value = _from_json(value, type_.impl_instance)
        if _overrides(type_, "process_result_value"):
            value = type_.process_result_value(value, _DIALECT)
        return value
    if isinstance(type_, UserDefinedType):
        process = type_.result_processor(_DIALECT, None)
        return process(value) if process else value
    if isinstance(type_, ARRAY) and isinstance(value, list):
        return tuple(_from_json(one, type_.item_type) for one in value)
    kind = kind_of(type_)
    if kind is None or value is None or isinstance(value, kind):
        return value
    return from_json(value, kind)


def _with_variant(column: ColumnElement[Any]) -> ColumnElement[Any]:
    # SQLAlchemy ignores variants of a type in an IN.
    variant = column.type.dialect_impl(_DIALECT)
    return type_coerce(column, variant) if isinstance(variant, TypeDecorator) else column


def _overrides(type_: TypeDecorator[Any], method: str) -> bool:
    return getattr(type(type_), method) is not getattr(TypeDecorator, method)


def _mapper(cls: type) -> Mapper[Any]:
    mapper: Mapper[Any] = inspect(cls)
    return mapper
