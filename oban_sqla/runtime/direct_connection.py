"""`DirectConnection`: sends prepared statements through libpq, past the cursors of psycopg."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any

import psycopg
from psycopg import errors, pq
from psycopg.adapt import Transformer

from .time_limits import CLOSING


class DirectConnection:
    """A connection of psycopg in AUTOCOMMIT, which sends one statement at a time.

    A cursor of psycopg takes 56 µs of CPU for a statement: it makes an event, arms a timer, and
    adds the socket to the event loop and removes it again. Here, the socket stays in the event
    loop until `release`, and a statement takes 20 µs. Nobody else may use the connection until
    then.
    """

    def __init__(self, driver: psycopg.AsyncConnection) -> None:
        self._driver = driver
        self._libpq = driver.pgconn
        self._encoding = driver.info.encoding
        self._adapter = Transformer(driver)
        self._names: dict[bytes, bytes] = {}
        self._answer: asyncio.Future[None] | None = None
        self._results: list[pq.abc.PGresult] = []
        self._loop = asyncio.get_running_loop()
        self._socket = self._libpq.socket
        self._loop.add_reader(self._socket, self._read)
        self.is_usable = True
        """Whether a statement can be sent: no answer is missing, and the server is there."""

    async def fetch(self, text: bytes, values: Sequence[str]) -> list[tuple[Any, ...]]:
        """Run a statement with the parameters `$1`, `$2` ..., and return its rows.

        Raises the error of psycopg. If the call is cancelled, the connection is not usable any
        more: the statement may still run.
        """
        encoded = [value.encode(self._encoding) for value in values]
        if self._driver.prepare_threshold is None:
            # The user says so for a pooler that can't keep prepared statements.
            self._libpq.send_query_params(text, encoded)
        else:
            name = self._names.get(text) or await self._prepare(text)
            self._libpq.send_query_prepared(name, encoded)
        return self._rows(await self._answered())

    def release(self) -> None:
        """Take the socket out of the event loop. Afterwards, psycopg may use the connection.

        A statement under way fails: nobody would read its answer.
        """
        self._fail(psycopg.OperationalError("the connection was given up before the answer"))

    async def _prepare(self, text: bytes) -> bytes:
        # The connection may come back from the pool later, with the statements of an earlier time.
        name = b"oban_sqla_" + sha256(text).hexdigest()[:16].encode()
        self._libpq.send_prepare(name, text)
        with suppress(errors.DuplicatePreparedStatement):
            await self._answered()
        self._names[text] = name
        return name

    async def _answered(self) -> pq.abc.PGresult:
        """Wait for the last result of what was sent; raise its error."""
        self._results = []
        self._answer = self._loop.create_future()
        try:
            if self._libpq.flush():
                self._loop.add_writer(self._socket, self._write)
        except psycopg.Error as error:
            self._fail(error)
        try:
            await self._answer
        except asyncio.CancelledError:
            self.is_usable = False
            await self._cancel()
            raise
        finally:
            self._answer = None
        for result in self._results:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise self._error(result)
        return self._results[-1]

    async def _cancel(self) -> None:
        # The connection will be closed in any case.
        with suppress(psycopg.Error):
            await self._driver.cancel_safe(timeout=CLOSING)

    def _read(self) -> None:
        try:
            self._libpq.consume_input()
            while not self._libpq.is_busy():
                result = self._libpq.get_result()
                if result is None:
                    self._finish()
                    return
                self._results.append(result)
        except psycopg.Error as error:
            self._fail(error)

    def _write(self) -> None:
        try:
            if not self._libpq.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._fail(error)

    def _finish(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _fail(self, error: psycopg.Error) -> None:
        self.is_usable = False
        if self._socket >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = -1
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _error(self, result: pq.abc.PGresult) -> psycopg.Error:
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        try:
            kind = errors.lookup(state)
        except KeyError:
            kind = psycopg.DatabaseError
        return kind(result.error_message.decode(self._encoding, "replace"))

    def _rows(self, result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
        loads = [
            self._adapter.get_loader(result.ftype(column), pq.Format.TEXT).load
            for column in range(result.nfields)
        ]
        return [
            tuple(
                None if (value := result.get_value(row, column)) is None else load(value)
                for column, load in enumerate(loads)
            )
            for row in range(result.ntuples)
        ]
