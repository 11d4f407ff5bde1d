"""The clocks: the database's clock decides which jobs are due; the client's clock computes times.

The client's clock only turns `schedule_in` into an instant. A test can hold it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Float,
    case,
    cast,
    extract,
    func,
    literal,
    literal_column,
)

# Global: a test, its fixtures and the threads of its jobs share the held clock.
_held_at: datetime | None = None


EVER: ColumnElement[Any] = literal_column("'-infinity'::timestamp")
"""Before all instants. Python can't represent it."""
NEVER: ColumnElement[Any] = literal_column("'infinity'::timestamp")
"""After all instants. Python can't represent it."""


def client_now() -> datetime:
    """The time of the client's clock, aware and in UTC."""
    return _held_at or datetime.now(UTC)


def held_at() -> datetime | None:
    """The instant at which a test holds the clock, for the parameter `now`; otherwise `None`."""
    return _held_at


@contextmanager
def held(at: datetime) -> Iterator[None]:
    """Hold the client's clock at an aware instant, in UTC, for a block."""
    global _held_at
    before, _held_at = _held_at, at
    try:
        yield
    finally:
        _held_at = before


def database_now(now: datetime | None = None) -> ColumnElement[Any]:
    """The current time for a statement, as a naive UTC timestamp.

    `None` means the database's clock at the start of the statement. SQL's `now()` is the start of
    the transaction, which may be long ago. Tests pass an instant instead of waiting.
    """
    if now is not None:
        return literal(now.astimezone(UTC).replace(tzinfo=None) if now.tzinfo else now, DateTime())
    return func.timezone("UTC", func.statement_timestamp(), type_=DateTime())


def since_statement() -> ColumnElement[float]:
    """The seconds that the statement has taken so far."""
    return seconds(func.clock_timestamp() - func.statement_timestamp())


def interval(seconds: Any) -> ColumnElement[Any]:
    """A number of seconds as an SQL interval."""
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def seconds(span: ColumnElement[Any]) -> ColumnElement[float]:
    """An SQL interval in seconds, or an SQL instant in seconds since the epoch."""
    return cast(extract("epoch", span), Float)


_FIRST: ColumnElement[Any] = literal_column("'0001-01-02'::timestamp")
_LAST: ColumnElement[Any] = literal_column("'9999-12-30'::timestamp")


def nearest(at: Any) -> ColumnElement[Any]:
    """An instant, or the nearest one that Python represents in every time zone."""
    return case((at < _FIRST, _FIRST), (at > _LAST, _LAST), else_=at)


LONGEST_INTERVAL = 3.2e9
"""The longest interval in seconds: a hundred years. A timestamp near now can move so far."""
