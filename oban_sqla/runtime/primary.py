"""Close connections to a server that is not the primary, recognized by PostgreSQL's error codes."""

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import sqlstate

_MARK = "oban_sqla_primary"

NOT_THE_PRIMARY = frozenset(("25006", "57P01", "57P02", "57P03", "57P04", "57P05"))
"""SQLSTATEs: the server is read-only, like a standby, or has ended the connection."""


def trusting_primary(engine: AsyncEngine) -> AsyncEngine:
    """An engine that drops all connections of its pool once one of them gets such an error.

    SQLAlchemy itself drops only closed connections, so after a failover the pool would keep those
    to the former primary. The given engine and its other users are not affected.
    """
    if not event.contains(engine.sync_engine, "handle_error", _lose):
        event.listen(engine.sync_engine, "handle_error", _lose)
    return engine.execution_options(**{_MARK: True})


def is_lost(error: BaseException) -> bool:
    """Whether an error says that the server is not the primary."""
    return sqlstate(error) in NOT_THE_PRIMARY or (
        "during recovery" in str(getattr(error, "orig", error))
    )


def _lose(context: ExceptionContext) -> None:
    connection = context.connection
    if connection is None or _MARK not in connection.get_execution_options():
        return
    if is_lost(context.original_exception):
        context.is_disconnect = True
