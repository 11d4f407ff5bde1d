"""`Notifier`: hears NOTIFY, and checks regularly that LISTEN still works."""

import asyncio
import base64
import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any
from uuid import uuid4

from sqlalchemy import func, select

from ..dsn import hide_passwords
from ..errors import ObanError
from ..events import NotifierLost, NotifierRestored
from .database import Database
from .listening import Listening
from .service import Emit, Service
from .time_limits import deadline

# Seconds between two checks of LISTEN, and the most seconds for an echo and for a connection.
PROOF_INTERVAL = 30.0
ECHO_TIMEOUT = 5.0
CONNECT_TIMEOUT = 10.0
# A prefix that Oban for Elixir may put before a packed payload.
PACKED = "Z:"

Hear = Callable[[dict[str, Any]], None]


class Notifier(Service):
    """Hears the channels of the tables' schema on a connection of its own.

    Behind a transaction pooler, `SELECT 1` still works when LISTEN is lost. So each pass sends a
    NOTIFY to itself over another connection. If the echo does not come, `listening` turns false,
    and the queues poll.
    """

    name = "notifier"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        channels: Mapping[str, Hear],
        on_change: Callable[[], None],
        listen_dsn: str | None,
        turn: asyncio.Lock | None = None,
    ) -> None:
        """`on_change` is called when `listening` changes.

        turn: a lock that is held while a connection of the pool is used, for an owner that may use
            only one connection at a time.
        """
        super().__init__(emit)
        self.listening = False
        self._database = database
        self._channels = channels
        self._on_change = on_change
        self._listen_dsn = listen_dsn
        self._turn = asyncio.Lock() if turn is None else turn
        self._proof = f"oban_sqla.{uuid4()}"
        self._echo = asyncio.Event()
        self._listening: Listening | None = None
        self._reader: asyncio.Task[None] | None = None

    async def run_once(self) -> float:
        """Connect if necessary, and check that notifications arrive."""
        if self._reader is not None and self._reader.done():
            reader = self._reader
            await self.close()
            await reader
        if self._reader is None:
            await self._connect()
        await self._prove()
        if not self.listening:
            self.listening = True
            # Services must make a pass, since earlier notifications were not heard.
            self._on_change()
        return PROOF_INTERVAL

    async def close(self) -> None:
        """Stop to listen."""
        reader, self._reader = self._reader, None
        self.listening = False
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.close()

    def failed(self, error: Exception) -> None:
        self._emit(
            "notifier_lost", NotifierLost(_reason(error), error, self._listen_dsn is not None)
        )

    def restored(self) -> None:
        self._emit("notifier_restored", NotifierRestored())

    async def _connect(self) -> None:
        listening = Listening(self._database.engine, self._listen_dsn)
        channels = [*map(self._full_name, self._channels), self._proof]
        pooled = self._turn if self._listen_dsn is None else nullcontext()
        async with deadline(CONNECT_TIMEOUT), pooled:
            await listening.open(channels, self._hear)
        self._listening = listening
        self._reader = asyncio.create_task(self._read(listening), name="oban-notifier-reader")

    async def _read(self, listening: Listening) -> None:
        try:
            await listening.read()
        finally:
            if self.listening:
                self.listening = False
                self._on_change()
            self.wake()
            # The end of asyncio.run() cancels this task without a call of `close()`.
            await listening.close()

    def _hear(self, channel: str, payload: str) -> None:
        if channel == self._proof:
            self._echo.set()
            return
        hear = self._channels.get(channel.rpartition(".")[2])
        news = decode(payload)
        if hear is not None and news is not None:
            hear(news)

    async def _prove(self) -> None:
        self._echo.clear()
        async with self._turn:
            await self._database.fetch(select(func.pg_notify(self._proof, "")))
        try:
            async with asyncio.timeout(ECHO_TIMEOUT):
                await self._echo.wait()
        except TimeoutError:
            await self.close()
            self._on_change()
            raise ObanError(
                "LISTEN does not work on this connection, as behind a transaction pooler; the"
                " queues poll. Name a direct connection with listen_dsn=, or choose notify='poll'"
            ) from None

    def _full_name(self, channel: str) -> str:
        return f"{self._database.prefix}.{channel}"


def _reason(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return hide_passwords(str(cause)) or type(cause).__name__


def decode(payload: str) -> dict[str, Any] | None:
    """Decode a payload as Oban sends it: JSON, or base64 of gzipped JSON; else `None`."""
    try:
        if not payload.startswith("{"):
            payload = gzip.decompress(base64.b64decode(payload.removeprefix(PACKED))).decode()
        news = json.loads(payload)
    except (ValueError, OSError, EOFError, zlib.error, RecursionError):
        return None
    return news if isinstance(news, dict) else None
