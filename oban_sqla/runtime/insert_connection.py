"""`InsertConnection`: a connection that is kept to insert single jobs, each time with a commit."""

from collections.abc import Sequence
from typing import Any, Self

import psycopg
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from ..enqueue.batch import Batch, encoded
from ..enqueue.connections import execute
from ..enqueue.from_rows import fill_from
from ..errors import sqlstate
from ..models import Job
from ..statements.inspect import home
from .database import Database
from .direct_connection import DirectConnection
from .engine import driver_of
from .primary import is_lost
from .raw_statement import raw_text


class InsertConnection:
    """A connection in AUTOCOMMIT. With psycopg, statements are sent past SQLAlchemy."""

    def __init__(
        self,
        database: Database,
        connection: AsyncConnection,
        direct: DirectConnection | None,
        prefix: str | None,
    ) -> None:
        self._database = database
        self._connection = connection
        self._direct = direct
        self._prefix = prefix
        self._failed = False

    @classmethod
    async def on(cls, database: Database, connection: AsyncConnection) -> Self:
        """Insert through `connection`, into the tables of `database`."""
        prefix = database.prefix
        if prefix is None:
            # Otherwise each statement would look for the schema.
            rows = (await connection.execute(home())).all()
            prefix = rows[0][0] if rows else None
        direct = None
        if connection.dialect.driver == "psycopg":
            direct = DirectConnection(driver_of(connection))
            direct.attach()
        return cls(database, connection, direct, prefix)

    @property
    def is_usable(self) -> bool:
        """Whether jobs can be inserted. Otherwise, the connection must be closed."""
        return not self._failed and (self._direct is None or self._direct.is_usable)

    async def insert(self, jobs: Sequence[Job]) -> bool:
        """Insert jobs with one statement; false if they can't be inserted together.

        After an error, the jobs may have been inserted or not, and the connection is not usable.
        """
        try:
            batches = [*encoded(jobs)]
        except (TypeError, ValueError):
            return False
        if len(batches) > 1:
            return False
        batch = batches[0]
        try:
            rows = await self._fetch(batch)
        except psycopg.Error as error:
            await self._raise_if_lost(error)
            # The jobs were not inserted, so they can be inserted in another way.
            self._failed = is_lost(error) or self._database.needs_transactions_after(error)
            return False
        except DBAPIError as error:
            if error.connection_invalidated:
                self._failed = True
                raise
            return False
        except BaseException:
            # The connection may be in any state.
            self._failed = True
            raise
        fill_from(rows, batch.jobs)
        return True

    def release(self) -> None:
        """Let SQLAlchemy use the connection again."""
        if self._direct is not None:
            self._direct.release()

    async def _fetch(self, batch: Batch) -> Sequence[Sequence[Any]]:
        if self._direct is None:
            return await execute(self._connection, batch.make, batch.parameters, self._prefix)
        schemas = () if self._prefix is None else ((None, self._prefix),)
        statement = batch.make(prefix=self._prefix)
        text = raw_text(statement, self._connection.dialect, schemas)
        return await self._direct.fetch(*text.filled(batch.parameters))

    async def _raise_if_lost(self, error: psycopg.Error) -> None:
        assert self._direct is not None
        if self._direct.is_usable and not sqlstate(error).startswith("57P0"):
            return
        self._failed = True
        self._direct.release()
        # A closed one would take another connection from the pool, and not give it back.
        if not (self._connection.invalidated or self._connection.closed):
            await self._connection.execute(select(1))  # raises SQLAlchemy's error
        raise error
