"""A TCP proxy in front of the server, whose connections a test can cut."""

import asyncio
import ctypes
import socket
import struct
from contextlib import suppress
from typing import Self
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

NOTIFICATION = b"A"
SO_ATTACH_FILTER = 26  # Python has no name for it
_DROP = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0
DROP_ALL = struct.pack("@HP", 1, ctypes.addressof(_DROP))
"""A filter with which Linux drops all packets to a socket, so that none is acknowledged."""


class Proxy:
    """Forwards what clients of `dsn` send to a server, and its answers back."""

    def __init__(self, server_dsn: str) -> None:
        self._given = {key: str(value) for key, value in conninfo_to_dict(server_dsn).items()}
        self._port = 0
        self._listener: socket.socket | None = None
        self._wires: set[_Wire] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.deaf = False
        """Whether notifications are dropped, as a transaction pooler does."""
        self.silent = False
        """Whether all answers are dropped while connections stay open, as in a broken network."""
        self.connections = 0
        """How many connections were opened."""
        self._cuts = 0
        self._marker: bytes | None = None
        self._lost = asyncio.Event()

    @property
    def dsn(self) -> str:
        user, name = quote(self._given.get("user", "")), quote(self._given.get("dbname", ""))
        password = quote(self._given.get("password", ""))
        # Without encryption, so that the proxy can read the messages.
        options = "sslmode=disable&gssencmode=disable"
        return f"postgresql://{user}:{password}@127.0.0.1:{self._port}/{name}?{options}"

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._wires)

    async def __aenter__(self) -> Self:
        await self.allow()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.refuse()
        # Also connections that are being opened.
        while self._tasks:
            self.cut()
            await asyncio.wait(self._tasks, timeout=0.1)

    async def allow(self) -> None:
        """Accept new connections."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._listener.setblocking(False)
        self._port = self._listener.getsockname()[1]
        # Not start_server(): it may hold accepted connections that no caller could close.
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def refuse(self) -> None:
        """Refuse new connections. Open ones go on."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def lead_to(self, server_dsn: str) -> None:
        """Lead new connections to another server. Open ones keep theirs."""
        self._given = {key: str(value) for key, value in conninfo_to_dict(server_dsn).items()}

    def cut(self) -> None:
        """Cut all connections. The server may still carry out statements that it received."""
        self._cuts += 1
        for wire in list(self._wires):
            wire.cut()

    def lose(self) -> int:
        """Lose the open connections, as if their host had vanished: nothing is forwarded any more,
        no packet is acknowledged, and no side is told. Returns their number.
        """
        for wire in self._wires:
            wire.lose()
        return len(self._wires)

    def lose_answer(self, marker: bytes) -> asyncio.Event:
        """Let the server carry out the next statement that contains `marker`, and lose its answer.

        The connection is cut when the server has answered. The event is set then.
        """
        self._marker = marker
        self._lost = asyncio.Event()
        return self._lost

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except OSError:  # the client has disconnected already
            return
        # Otherwise each message would wait for the acknowledgement of the one before.
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        task = asyncio.create_task(self._connect(accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        cuts = self._cuts
        client = await asyncio.open_connection(sock=accepted)
        host = self._given.get("host", "")
        port = self._given.get("port", "5432")
        try:
            if host.startswith("/"):
                server = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
            else:
                server = await asyncio.open_connection(host or "127.0.0.1", int(port))
        except OSError:
            client[1].transport.abort()
            return
        wire = _Wire(self, client, server)
        if self._cuts > cuts:
            wire.cut()
            return
        self._wires.add(wire)
        try:
            await wire.forward()
        finally:
            self._wires.discard(wire)

    def loses_answer_to(self, data: bytes) -> bool:
        if self._marker is None or self._marker not in data:
            return False
        self._marker = None
        return True

    def answer_lost(self) -> None:
        self._lost.set()


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Wire:
    """One proxied connection."""

    def __init__(self, proxy: Proxy, client: _Streams, server: _Streams) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._losing = False
        self._lost = False

    async def forward(self) -> None:
        directions = [
            asyncio.ensure_future(self._requests()),
            asyncio.ensure_future(self._answers()),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.cut()
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            for _, writer in (self._client, self._server):
                with suppress(OSError):
                    await writer.wait_closed()

    def cut(self) -> None:
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    def lose(self) -> None:
        self._lost = True
        client = self._client[1].get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, DROP_ALL)

    async def _requests(self) -> None:
        with suppress(OSError):
            while data := await self._client[0].read(65536):
                self._losing = self._losing or self._proxy.loses_answer_to(data)
                self._server[1].write(data)
                await self._server[1].drain()

    async def _answers(self) -> None:
        reader, writer = self._server[0], self._client[1]
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
                if self._losing and head[:1] != NOTIFICATION:
                    # PostgreSQL answers after the commit, so look at the last message.
                    await self._await_end(head)
                    self._proxy.answer_lost()
                    return
                if (
                    self._lost
                    or self._proxy.silent
                    or (self._proxy.deaf and head[:1] == NOTIFICATION)
                ):
                    continue
                writer.write(head + body)
                await writer.drain()

    async def _await_end(self, head: bytes) -> None:
        while head[:1] != b"Z":
            head = await self._server[0].readexactly(5)
            await self._server[0].readexactly(int.from_bytes(head[1:]) - 4)
