"""Primary keys of mapped classes as JSON, and back, each value through its column's type."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Dialect, TypeDecorator, inspect, tuple_, type_coerce
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeEngine, UserDefinedType

from . import validation
from .json_types import from_json, kind_of, to_json

# A type may ask the dialect for its name, or for what it supports.
_DIALECT: Dialect = PGDialect()  # type: ignore[no-untyped-call]


@lru_cache(maxsize=1024)
def key_names(cls: type) -> tuple[str, ...]:
    """The attributes of the primary key of a mapped class."""
    mapper = _mapper(cls)
    return tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)


def key_to_json(cls: type, identity: Sequence[Any]) -> dict[str, Any]:
    """A primary key, which the mapper has as a tuple, by the names of its attributes."""
    columns = _mapper(cls).primary_key
    values = [_to_json(value, column.type) for value, column in zip(identity, columns, strict=True)]
    return validation.json_object("the key", dict(zip(key_names(cls), values, strict=True)))


def key_from_json(cls: type, key: Mapping[str, Any]) -> tuple[Any, ...]:
    """The primary key as the mapper has it; raises for a value that is none of the column's."""
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
    """The value as JSON: of a user's own type, the value that it sends to the database."""
    type_ = type_.dialect_impl(_DIALECT)
    if isinstance(type_, TypeDecorator):
        if _overrides(type_, "process_bind_param"):
            value = type_.process_bind_param(value, _DIALECT)
        return _to_json(value, type_.impl_instance)
    if isinstance(type_, UserDefinedType) and (process := type_.bind_processor(_DIALECT)):
        value = process(value)
    # Converted by its own type, since a key may be of a type that arguments may not.
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
    kind = kind_of(type_)
    if kind is None or value is None or isinstance(value, kind):
        return value
    return from_json(value, kind)


def _with_variant(column: ColumnElement[Any]) -> ColumnElement[Any]:
    # In an IN, SQLAlchemy does not look for a variant of the type.
    variant = column.type.dialect_impl(_DIALECT)
    return type_coerce(column, variant) if isinstance(variant, TypeDecorator) else column


def _overrides(type_: TypeDecorator[Any], method: str) -> bool:
    return getattr(type(type_), method) is not getattr(TypeDecorator, method)


def _mapper(cls: type) -> Mapper[Any]:
    mapper: Mapper[Any] = inspect(cls)
    return mapper
