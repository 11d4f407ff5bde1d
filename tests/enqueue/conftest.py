"""What others see: a second connection that reads, and one that listens."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row


class Observer:
    """Another connection, which sees only committed data."""

    def __init__(self, connection: psycopg.AsyncConnection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    async def jobs(self) -> list[dict[str, Any]]:
        """The rows of `oban_jobs` in the order of their ids."""
        return await self._rows("SELECT * FROM {} ORDER BY id", "oban_jobs")

    async def args(self) -> list[Any]:
        """The arguments of the jobs in the order of their ids."""
        return [job["args"] for job in await self.jobs()]

    async def users(self) -> list[str]:
        """The names of the users."""
        return [user["name"] for user in await self._rows("SELECT * FROM {} ORDER BY id", "users")]

    async def _rows(self, query: str, table: str) -> list[dict[str, Any]]:
        statement = sql.SQL(query).format(sql.Identifier(self._prefix, table))
        return await (await self._connection.execute(statement)).fetchall()


class Listener:
    """A connection that listens to the two channels of one schema."""

    def __init__(self, connection: psycopg.AsyncConnection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix
        self._received: list[psycopg.Notify] = []

    async def start(self) -> None:
        # Not `notifies()`: psycopg 3.2.1 does not yield news that came with an answer.
        self._connection.add_notify_handler(self._received.append)
        for channel in ("oban_insert", "oban_schedule", "fence"):
            await self._listen(f"{self._prefix}.{channel}")

    async def heard(self) -> list[tuple[str, Any]]:
        """The notifications so far: (channel without the schema, payload).

        PostgreSQL delivers in the order of the commits, and sends this connection's own
        notification, the fence, with the answer. News of a later commit may follow it.
        """
        fence = uuid4().hex
        await self._connection.execute("SELECT pg_notify(%s, %s)", [f"{self._prefix}.fence", fence])
        end = [one.payload for one in self._received].index(fence)
        received, self._received[: end + 1] = self._received[:end], []
        news = []
        for notification in received:
            schema, _, channel = notification.channel.rpartition(".")
            assert schema == self._prefix
            news.append((channel, json.loads(notification.payload)))
        return news

    async def _listen(self, channel: str) -> None:
        await self._connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))


@pytest.fixture
async def connection(postgres_dsn: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection in autocommit, for looking and listening."""
    async with await psycopg.AsyncConnection.connect(
        postgres_dsn, autocommit=True, row_factory=dict_row
    ) as connection:
        yield connection


@pytest.fixture
def observer(connection: psycopg.AsyncConnection, prefix: str) -> Observer:
    return Observer(connection, prefix)


@pytest.fixture
async def listener(connection: psycopg.AsyncConnection, prefix: str) -> Listener:
    listener = Listener(connection, prefix)
    await listener.start()
    return listener
