"""`DirectConnection`: sends prepared statements through libpq, past the cursors of psycopg."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
from psycopg import Pipeline, errors, pq
from psycopg.adapt import PyFormat, Transformer
from sqlalchemy.ext.asyncio import AsyncConnection

from .engine import driver_of
from .time_limits import CLOSING

BEGIN, COMMIT = b"BEGIN ISOLATION LEVEL READ COMMITTED", b"COMMIT"

Statement: TypeAlias = tuple[bytes, Sequence[Any]]
"""A text with the parameters `$1`, `$2` ..., and their values."""


class DirectConnection:
    """A connection of psycopg in AUTOCOMMIT, which sends one statement at a time.

    A cursor of psycopg takes 56 µs of CPU for a statement: it makes an event, arms a timer, and
    adds the socket to the event loop and removes it again. Here, the socket stays in the event
    loop from `attach` to `release`, and a statement takes 20 µs. Nobody else may use the connection
    until then.
    """

    def __init__(self, driver: psycopg.AsyncConnection) -> None:
        self._driver = driver
        self._libpq = driver.pgconn
        self._encoding = driver.info.encoding
        self._adapter = Transformer(driver)
        # The names of the prepared statements. An empty name: the statement was sent once.
        self._names: dict[bytes, bytes] = {}
        self._answer: asyncio.Future[None] | None = None
        self._results: list[pq.abc.PGresult] = []
        self._is_answered = True
        self._socket = -1
        self.is_usable = False
        """Whether a statement can be sent: no answer is missing, and the server is there."""

    def attach(self) -> None:
        """Add the socket to the event loop, so that statements can be sent."""
        self._loop = asyncio.get_running_loop()
        self._socket = self._libpq.socket
        self._loop.add_reader(self._socket, self._read)
        self.is_usable = True

    def release(self) -> None:
        """Take the socket out of the event loop. Afterwards, psycopg may use the connection.

        A statement under way fails: nobody would read its answer.
        """
        if self._answer is None:
            self._detach()
        else:
            self._fail(psycopg.OperationalError("the connection was given up before the answer"))

    async def fetch(self, text: bytes, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a statement with the parameters `$1`, `$2` ..., and return its rows.

        A statement that is sent again is prepared. Raises the error of psycopg. If the call is
        cancelled, it cancels the statement and waits for its end, and the connection is not usable
        any more.
        """
        name, dumped = await self._prepared(text), self._dumped(values)
        self._send(text, name, dumped)
        return self._rows((await self._answered())[-1])

    async def fetch_behind(self, first: Statement, then: Statement) -> list[tuple[Any, ...]]:
        """Run two statements in one transaction, and return the rows of the second one.

        The transaction is sent in one message, unless libpq is too old for pipelines. Both
        statements are prepared at once. After an error, the connection must be closed.
        """
        statements: list[Statement] = [(BEGIN, ()), first, then, (COMMIT, ())]
        if not Pipeline.is_supported():
            return [await self.fetch(*one) for one in statements][2]
        sent = [
            (text, await self._prepared(text, at_once=True), self._dumped(values))
            for text, values in statements
        ]
        self._libpq.enter_pipeline_mode()
        try:
            for one in sent:
                self._send(*one)
            self._libpq.pipeline_sync()
            results = await self._answered()
        finally:
            # If answers are missing, the connection stays in the mode.
            with suppress(psycopg.Error):
                self._libpq.exit_pipeline_mode()
        return self._rows(results[2])

    def _dumped(self, values: Sequence[Any]) -> Sequence[Any]:
        return self._adapter.dump_sequence(values, [PyFormat.TEXT] * len(values))

    def _send(self, text: bytes, name: bytes, dumped: Sequence[Any]) -> None:
        if name:
            self._libpq.send_query_prepared(name, dumped)
        else:
            self._libpq.send_query_params(text, dumped)

    def _rows(self, result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
        self._adapter.set_pgresult(result)
        return self._adapter.load_rows(0, result.ntuples, tuple)

    async def _prepared(self, text: bytes, *, at_once: bool = False) -> bytes:
        """The name of a prepared statement; empty if it must be sent unprepared."""
        name = self._names.get(text)
        if name is None and not at_once:
            self._names[text] = b""
        # With this threshold, the user says that a pooler can't keep prepared statements.
        elif not name and self._driver.prepare_threshold is not None:
            name = self._names[text] = await self._prepare(text)
        return name or b""

    async def _prepare(self, text: bytes) -> bytes:
        # The connection may come back from the pool later, with the statements of an earlier time.
        name = b"oban_sqla_" + sha256(text).hexdigest()[:16].encode()
        self._libpq.send_prepare(name, text)
        with suppress(errors.DuplicatePreparedStatement):
            await self._answered()
        return name

    async def _answered(self) -> list[pq.abc.PGresult]:
        """Wait for the results of what was sent; raise the first error."""
        self._results, self._is_answered = [], False
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
        return self._results

    async def _cancel(self) -> None:
        # Whether the statement was carried out must be certain before the caller goes on.
        if self._is_answered:
            return
        self._answer = self._loop.create_future()
        with suppress(psycopg.Error, TimeoutError):
            await self._driver.cancel_safe(timeout=CLOSING)
            async with asyncio.timeout(CLOSING):
                await self._answer

    def _read(self) -> None:
        try:
            self._libpq.consume_input()
            # A pipeline has a None behind the results of each statement, and a SYNC at its end.
            last, nones = 2 if self._libpq.pipeline_status else 1, 0
            while not self._libpq.is_busy():
                result = self._libpq.get_result()
                if result is not None:
                    self._results.append(result)
                nones = nones + 1 if result is None else 0
                if nones == last or (result and result.status == pq.ExecStatus.PIPELINE_SYNC):
                    self._finish()
                    return
        except psycopg.Error as error:
            self._fail(error)

    def _write(self) -> None:
        try:
            if not self._libpq.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._fail(error)

    def _finish(self) -> None:
        self._is_answered = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _fail(self, error: psycopg.Error) -> None:
        self._detach()
        self._is_answered = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _detach(self) -> None:
        self.is_usable = False
        if self._socket >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = -1

    def _error(self, result: pq.abc.PGresult) -> psycopg.Error:
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        try:
            kind = errors.lookup(state)
        except KeyError:
            kind = psycopg.DatabaseError
        message = pq.error_message(result, self._encoding)
        return kind(message, info=result, encoding=self._encoding)


# Kept from one block to the next, since each knows which statements it has prepared.
_known: WeakKeyDictionary[AsyncConnection, DirectConnection] = WeakKeyDictionary()


@contextmanager
def attached(connection: AsyncConnection) -> Iterator[DirectConnection]:
    """Send statements of a block past SQLAlchemy. `connection` is in AUTOCOMMIT."""
    direct = _known.get(connection)
    if direct is None:
        direct = _known[connection] = DirectConnection(driver_of(connection))
    direct.attach()
    try:
        yield direct
    finally:
        direct.release()


def forget(connection: AsyncConnection) -> None:
    """Prepare the statements again: after a rollback, psycopg deallocates all of them."""
    _known.pop(connection, None)
