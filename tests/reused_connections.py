"""Connections that leave their server process to the next test.

A new server process takes 5 ms of CPU, and a node opens six connections. `close()` resets the
session: its transaction, locks, LISTEN and settings are gone, as if the process had ended. In the
next test, `connect()` takes the process over with a new object of psycopg. Within a test, each
connection has a process of its own.
"""

from collections import defaultdict
from contextlib import suppress
from select import select
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ExecStatus, PGconn, PipelineStatus, TransactionStatus, abc

MOST = 20
"""Processes that are left in a test. With 0, `close()` ends the process, which a test may need."""
LONGEST_ANSWER = 2.0

Target = frozenset[tuple[str, Any]]

_left: list[tuple[Target, abc.PGconn]] = []
_free: dict[Target, list[abc.PGconn]] = defaultdict(list)
_closed = PGconn.connect_start(b"")
_closed.finish()


class ReusedConnection(psycopg.AsyncConnection[Any]):
    _target: Target

    @classmethod
    async def connect(
        cls, conninfo: str = "", *, autocommit: bool = False, row_factory: Any = None, **target: Any
    ) -> "ReusedConnection":
        key = frozenset(conninfo_to_dict(conninfo, **target).items())
        libpq = _take(key)
        connection = cls(libpq) if libpq else await super().connect(conninfo, **target)
        connection._target = key
        await connection.set_autocommit(autocommit)
        if row_factory is not None:
            connection.row_factory = row_factory
        return connection

    async def close(self) -> None:
        # Waits for nothing in the event loop, as the method of psycopg.
        if not self.closed and len(_left) < MOST and _reset(self.pgconn):
            _left.append((self._target, self.pgconn))
            self.pgconn = _closed
        await super().close()


def begin_next_test() -> None:
    """Let new connections take over the processes that the last test has left."""
    while _left:
        target, libpq = _left.pop()
        if len(_free[target]) < MOST:
            _free[target].append(libpq)
        else:
            libpq.finish()


def close_free() -> None:
    """End the free server processes."""
    begin_next_test()
    for free in _free.values():
        while free:
            free.pop().finish()


def _take(target: Target) -> abc.PGconn | None:
    with suppress(IndexError):  # not `while _free[target]`: other threads take them, too
        while True:
            libpq = _free[target].pop()
            if _is_idle(libpq):
                return libpq
            libpq.finish()
    return None


def _is_idle(libpq: abc.PGconn) -> bool:
    with suppress(psycopg.Error):
        libpq.consume_input()  # fails if the server has ended the process
    return libpq.transaction_status == TransactionStatus.IDLE


def _reset(libpq: abc.PGconn) -> bool:
    """Reset the session. False if this connection must be closed."""
    libpq.notice_handler = libpq.notify_handler = None
    statements = [b"DISCARD ALL"]
    match libpq.transaction_status:
        case TransactionStatus.INTRANS | TransactionStatus.INERROR:
            statements.insert(0, b"ROLLBACK")
        case TransactionStatus.IDLE:
            pass
        case _:
            return False
    if libpq.pipeline_status != PipelineStatus.OFF:
        return False
    with suppress(psycopg.Error):
        if all(_succeeds(libpq, statement) for statement in statements):
            while libpq.notifies():
                pass
            return True
    return False


def _succeeds(libpq: abc.PGconn, statement: bytes) -> bool:
    # Not exec_(), which waits for ever, also for a server that no longer answers.
    libpq.send_query(statement)
    libpq.flush()
    while libpq.is_busy():
        if not select([libpq.socket], [], [], LONGEST_ANSWER)[0]:
            return False
        libpq.consume_input()
    result = libpq.get_result()
    return (
        result is not None
        and result.status == ExecStatus.COMMAND_OK
        and not libpq.is_busy()
        and libpq.get_result() is None
    )
