"""Refuse to enqueue in a read-only transaction, before anything is sent."""

from typing import Any

import psycopg

from ..errors import ObanError, StandbyError

READ_ONLY = (
    "enqueue in a transaction that may write, or without conn in a transaction of the instance"
)


def refuse_read_only(driver: Any) -> None:
    """`ObanError` if a driver's connection says that its transaction is read-only.

    A failed statement would break the caller's transaction. The server is not asked: after SET
    TRANSACTION READ ONLY, its error says the same.
    """
    if isinstance(driver, psycopg.Connection | psycopg.AsyncConnection):
        # PostgreSQL reports it unasked.
        if driver.info.parameter_status("in_hot_standby") == "on":
            raise StandbyError(
                "the server of this connection is a standby, which stores no jobs; enqueue on a"
                " connection to the primary"
            )
        # psycopg ignores the attribute in AUTOCOMMIT.
        read_only = driver.read_only and not driver.autocommit
    else:
        # Of SQLAlchemy's adapter of asyncpg, and of psycopg2.
        read_only = getattr(driver, "readonly", False)
    if read_only:
        raise ObanError(f"the transaction is read-only, so it can't enqueue jobs; {READ_ONLY}")
