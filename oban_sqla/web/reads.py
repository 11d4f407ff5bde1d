"""Run the statements of pages, each in a read-only transaction with a timeout."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..runtime.database import Database
from ..runtime.time_limits import deadline

# Seconds for the answer to arrive after the server has stopped the statement.
_GRACE = 2.0


class Reads(Database):
    """A database from which pages only read."""

    def __init__(self, engine: AsyncEngine, prefix: str | None, *, timeout: float) -> None:
        super().__init__(engine, prefix)
        self._timeout = timeout
        self._verified: str | None = None

    async def verify(self, privileges: object = ()) -> str:
        """Find the tables once, not for each page."""
        if self._verified is None:
            self._verified = await super().verify()
        return self._verified

    @asynccontextmanager
    async def statement(self, *, at_once: bool = False) -> AsyncIterator[AsyncConnection]:
        async with deadline(self._timeout + _GRACE), self.transaction() as connection:
            await connection.execute(set_timeout(self._timeout, read_only=True))
            yield connection


def set_timeout(seconds: float, *, read_only: bool = False) -> Select[tuple[str, ...]]:
    """The start of a transaction: it sets a timeout and makes the transaction read-only."""
    settings = {
        "statement_timeout": f"{1000 * seconds:.0f}",
        "jit": "off",  # compiling takes longer than the statements of pages
        **({"transaction_read_only": "on"} if read_only else {}),
    }
    return select(*(func.set_config(name, value, True) for name, value in settings.items()))
