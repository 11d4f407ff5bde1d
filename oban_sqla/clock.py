"""The clocks: the database's decides what is due, the client's only computes `schedule_in`."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, DateTime, func, literal


def client_now() -> datetime:
    """The client's clock: aware, in UTC."""
    return datetime.now(UTC)


def database_now(now: datetime | None = None) -> ColumnElement[Any]:
    """The instant a statement measures by, as a naive UTC timestamp.

    `None` is the database's clock at the start of the statement. `now()` would not do: a long
    transaction freezes it at its beginning. Tests pass an instant instead of waiting.
    """
    if now is not None:
        return literal(now.astimezone(UTC).replace(tzinfo=None) if now.tzinfo else now, DateTime())
    return func.timezone("UTC", func.statement_timestamp(), type_=DateTime())
