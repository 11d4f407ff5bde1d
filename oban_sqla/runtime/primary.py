"""Trust a connection only while it answers as the primary does (PostgreSQL's error codes)."""

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import sqlstate

_MARK = "oban_sqla_primary"

NOT_THE_PRIMARY = frozenset(("25006", "57P01", "57P02", "57P03", "57P04", "57P05"))
"""By SQLSTATE: the server is read-only, as a standby is, or ended the connection."""


def trusting_primary(engine: AsyncEngine) -> AsyncEngine:
    """The engine, whose connections are lost once they answer otherwise, with all of the pool.

    SQLAlchemy itself takes a connection for lost only when it is closed: after a failover, those
    to the former primary would go on from hand to hand. Other uses of the engine stay as they are.
    """
    if not event.contains(engine.sync_engine, "handle_error", _lose):
        event.listen(engine.sync_engine, "handle_error", _lose)
    return engine.execution_options(**{_MARK: True})


def is_lost(error: BaseException) -> bool:
    """Whether an error of a statement, or of its driver, says that this is not the primary."""
    return sqlstate(error) in NOT_THE_PRIMARY or (
        "during recovery" in str(getattr(error, "orig", error))
    )


def _lose(context: ExceptionContext) -> None:
    connection = context.connection
    if connection is None or _MARK not in connection.get_execution_options():
        return
    if is_lost(context.original_exception):
        context.is_disconnect = True
