"""Read columns of jobs for people: a value that Python can't read is named, and breaks no list."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, case, cast, null

from ..models import Job
from ..models.notation import from_table
from ..statements.claimed import INSTANTS, JSON_COLUMNS, Loads, fetchable, representable

UNREADABLE = "(can't be read)"
"""Stands for JSON that Python can't parse, such as a number of 5,000 digits."""

_AS_TEXT = "_as_text"


def readable_columns(names: Sequence[str]) -> list[ColumnElement[Any]]:
    """Columns of jobs that every driver can fetch, for `read`."""
    found: list[ColumnElement[Any]] = []
    for name in names:
        column = getattr(Job, name)
        found.append(fetchable(name, column))
        if name in INSTANTS:
            text = case((representable(column), null()), else_=cast(column, Text))
            found.append(text.label(f"{name}{_AS_TEXT}"))
    return found


def read(row: Any, loads: Loads) -> dict[str, Any]:
    """The values of a row. An instant that Python can't represent is a text, such as `infinity`."""
    values = dict(row._mapping)
    for name in INSTANTS:
        text = values.pop(f"{name}{_AS_TEXT}", None)
        if text is not None:
            values[name] = text
    for name in JSON_COLUMNS:
        if values.get(name) is not None:
            values[name] = _parsed(values[name], loads)
    if "args" in values:
        values["args"] = from_table(values["args"])
    return values


def _parsed(text: Any, loads: Loads) -> Any:
    try:
        return loads(text)
    except Exception:
        # The engine's deserializer may raise anything.
        return UNREADABLE
