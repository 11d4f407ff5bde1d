"""The clocks: the database's decides what is due, the client's only computes `schedule_in`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Float, cast, extract, func, literal

# Of the process, as the clock is: a test, its fixtures and the threads of its jobs share it.
_held_at: datetime | None = None


def client_now() -> datetime:
    """The client's clock: aware, in UTC."""
    return _held_at or datetime.now(UTC)


def held_at() -> datetime | None:
    """The instant at which a test holds the clock, to be passed as `now`; `None` if none does."""
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
    """The instant a statement measures by, as a naive UTC timestamp.

    `None` is the database's clock at the start of the statement. `now()` would not do: a long
    transaction freezes it at its beginning. Tests pass an instant instead of waiting.
    """
    if now is not None:
        return literal(now.astimezone(UTC).replace(tzinfo=None) if now.tzinfo else now, DateTime())
    return func.timezone("UTC", func.statement_timestamp(), type_=DateTime())


def interval(seconds: Any) -> ColumnElement[Any]:
    """So many seconds, an expression, as what is added to an instant."""
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def seconds(span: ColumnElement[Any]) -> ColumnElement[float]:
    """An interval in seconds; an instant in seconds of the epoch."""
    return cast(extract("epoch", span), Float)


LONGEST_INTERVAL = 3.2e9
"""The seconds that PostgreSQL's timestamps bear to be taken from now: a hundred years."""
