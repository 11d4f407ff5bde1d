"""The rows of a claim, and their jobs. A row that can't be read fails only its own job."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Dialect,
    Text,
    and_,
    case,
    cast,
    literal,
    literal_column,
    null,
)

from ..errors import UnreadableJobError
from ..models import Job, JobState
from ..models.job import COLUMNS, detached
from ..models.notation import from_table, may_hold_our_keys
from ..models.types import UTCDateTime
from ..models.unique import COUNTED_BY

Loads = Callable[[Any], Any]
"""Parses the JSON of a column."""

NONE_LEFT_MARK = "none left"
"""The fourth element of `attempted_by`: the claimer is not to run the job, but to discard it."""

JSON_COLUMNS = ("args", "meta", "errors")
INSTANTS = tuple(column.key for column in Job.__table__.c if isinstance(column.type, UTCDateTime))


def loads_of(dialect: Dialect) -> Loads:
    """The function that parses JSON for an engine: its `json_deserializer`, else `parsed`."""
    # SQLAlchemy has no public attribute for the deserializer.
    return getattr(dialect, "_json_deserializer", None) or parsed


def parsed(text: str | bytes) -> Any:
    """`json.loads`, in a third of its time if no white space is around the text, as in `jsonb`."""
    if isinstance(text, str) and not text[:1].isspace():
        value, end = _decode(text)
        if end == len(text):
            return value
    return json.loads(text)


_decode = json.JSONDecoder().raw_decode


def claimed_columns(job: Any) -> list[ColumnElement[Any]]:
    """All columns of a job in a form that every driver can fetch, and `unreadable` at the end.

    JSON columns are selected as text. An instant outside Python's years 1 to 9999 is selected as
    NULL, and `unreadable` names its column.
    """
    columns = [fetchable(name, job[name]) for name in COLUMNS]
    unreadable = case(
        *((~representable(job[name]), literal(name, Text)) for name in INSTANTS), else_=null()
    )
    return [*columns, unreadable.label("unreadable")]


class Claimed:
    """A row of a claim. Reads only the fields that a producer needs; `job()` reads the rest."""

    __slots__ = ("_row", "attempt", "attempted_at", "id", "max_attempts", "priority", "state")

    def __init__(self, row: Sequence[Any]) -> None:
        self._row = row
        self.id: int = row[_ID]
        self.attempt: int = row[_ATTEMPT]
        self.max_attempts: int = row[_MAX_ATTEMPTS]
        self.priority: int = row[_PRIORITY]
        self.attempted_at: datetime | None = row[_ATTEMPTED_AT]
        self.state = _STATES[row[_STATE]]

    @property
    def scheduled_at(self) -> datetime | None:
        """When the job was due, in naive UTC; `None` for an instant that Python can't represent."""
        found: datetime | None = self._row[_SCHEDULED_AT]
        return None if found is None else found.replace(tzinfo=None)

    @property
    def none_left(self) -> bool:
        """Whether the job has no attempt left, so that the claimer discards it."""
        return NONE_LEFT_MARK in self._row[_ATTEMPTED_BY][3:]

    @property
    def meta_text(self) -> str:
        """The meta of the job, as the table stores it."""
        text = self._row[_META]
        # SQL_ASCII databases give bytes.
        return text if isinstance(text, str) else text.decode("utf-8", "replace")

    @property
    def may_be_limited(self) -> bool:
        """Whether the job may have a limit of its own. Its meta is not parsed."""
        return self._row[_META] not in _EMPTY and COUNTED_BY[0] in self.meta_text

    def job(self, loads: Loads) -> Job:
        """The job, in no session. `UnreadableJobError` names the column that can't be read."""
        values = self._readable()
        for name in JSON_COLUMNS:
            text = values[name]
            if (empty := _EMPTY.get(text)) is not None:
                values[name] = empty()
                continue
            try:
                values[name] = loads(text)
            except Exception as error:
                raise UnreadableJobError(self.id, name) from error
        if _may_hold_references(self._row[_ARGS]):
            values["args"] = from_table(values["args"])
        if (name := self._row[-1]) is not None:
            raise UnreadableJobError(self.id, name)
        return detached(values)

    def readable_job(self) -> Job:
        """The job with empty JSON columns, for a row whose JSON may be unreadable."""
        return detached(self._readable() | {name: _EMPTY_OF[name]() for name in JSON_COLUMNS})

    def _readable(self) -> dict[str, Any]:
        values = dict(zip(COLUMNS, self._row, strict=False))
        values["state"] = self.state
        for name in INSTANTS:
            if (instant := values[name]) is not None:
                # In a fifth of the time of `instant.replace(tzinfo=UTC)`.
                values[name] = datetime.combine(instant, instant.time(), UTC)
        return values


_ARGS, _META, _ID, _ATTEMPT, _MAX_ATTEMPTS, _PRIORITY, _STATE, _ATTEMPTED_AT, _SCHEDULED_AT = map(
    COLUMNS.index,
    (
        "args",
        "meta",
        "id",
        "attempt",
        "max_attempts",
        "priority",
        "state",
        "attempted_at",
        "scheduled_at",
    ),
)
_ATTEMPTED_BY = COLUMNS.index("attempted_by")
# Keyed by members, which equal their values: psycopg returns strings, SQLAlchemy members.
_STATES = {state: state for state in JobState}
# The JSON of most jobs, which needs no parser. Drivers return text or bytes.
_EMPTY: dict[Any, Callable[[], Any]] = {"{}": dict, b"{}": dict, "[]": list, b"[]": list}
_EMPTY_OF: dict[str, Callable[[], Any]] = {"args": dict, "meta": dict, "errors": list}


def _may_hold_references(text: Any) -> bool:
    # A database with the encoding SQL_ASCII returns bytes.
    return not isinstance(text, str) or may_hold_our_keys(text)


def fetchable(name: str, column: Any) -> ColumnElement[Any]:
    """A column in a form that every driver can fetch: JSON as text, a far instant as NULL."""
    if name in JSON_COLUMNS:
        return cast(column, Text).label(name)
    if name in INSTANTS:
        return if_representable(column).label(name)
    other: ColumnElement[Any] = column
    return other


def if_representable(instant: Any) -> ColumnElement[Any]:
    """An instant, or NULL for a far one."""
    return case((representable(instant), instant), else_=null())


def representable(instant: Any) -> ColumnElement[bool]:
    """Whether an instant is in Python's years 1 to 9999."""
    first: ColumnElement[Any] = literal_column("TIMESTAMP '0001-01-01'")
    beyond: ColumnElement[Any] = literal_column("TIMESTAMP '10000-01-01'")
    return and_(instant >= first, instant < beyond)
