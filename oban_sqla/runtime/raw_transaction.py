"""`RawTransactions`: transactions whose statements are sent directly through the driver."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.rows import namedtuple_row
from sqlalchemy import Executable

from .database import Database
from .engine import driver_of
from .following import Fetches, InTransaction
from .raw_statement import raw_text
from .time_limits import ANSWER_TIMEOUT, deadline


class RawTransactions:
    """Transactions for a database whose tables have been found.

    With psycopg, a transaction is on a kept connection, and the text of each statement is compiled
    once. SQLAlchemy and psycopg would read a long text each time. The values are as in
    `RawStatement`. With another driver, SQLAlchemy executes the statements.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._direct = database.engine.dialect.driver == "psycopg"
        # As in `RawStatement`, SQLAlchemy carries out the first transaction after a failure.
        self._failed = False

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Fetches]:
        """A transaction that commits at the end. After an error, it is rolled back."""
        database = self._database
        if self._failed or not self._direct or database.in_transactions:
            async with deadline(ANSWER_TIMEOUT), database.transaction() as connection:
                yield InTransaction(connection)
            self._failed = False
            return
        try:
            async with database.statement(at_once=True) as connection:
                driver = driver_of(connection)
                async with _transaction(driver):
                    yield _InRawTransaction(driver, database)
        except BaseException as error:
            self._failed = True
            database.needs_transactions_after(error)
            raise


@asynccontextmanager
async def _transaction(driver: AsyncConnection) -> AsyncIterator[None]:
    try:
        await driver.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        yield
        await driver.execute("COMMIT")
    except psycopg.Error:
        # The connection will be closed, but its locks must be released before the caller goes on.
        with suppress(psycopg.Error):
            await driver.execute("ROLLBACK")
        raise


class _InRawTransaction:
    """Runs statements on a connection of psycopg with an open transaction."""

    def __init__(self, driver: AsyncConnection, database: Database) -> None:
        self._driver = driver
        self._database = database

    async def fetch(
        self, statement: Executable, params: Mapping[str, Any] | None = None
    ) -> Sequence[Any]:
        schemas = tuple(self._database.schemas["schema_translate_map"].items())
        text = raw_text(statement, self._database.engine.dialect, schemas)
        cursor = AsyncRawCursor(self._driver, row_factory=namedtuple_row)
        # Prepared at once, since the server reads and plans a long statement for milliseconds.
        await cursor.execute(*text.filled(params or {}), prepare=True)
        return await cursor.fetchall()
