"""The HTTP endpoint of a node: metrics, health and readiness.

Threads serve it, so that it answers while a worker blocks the event loop.
"""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app

from ..oban import Oban
from . import prometheus
from .check_ups import CheckUps

PATIENCE = 5.0
"""Seconds in which the event loop and the database must answer."""
# If one of these services fails, jobs are not claimed, or their outcomes are not written.
_CLAIMING = ("producer", "outbox", "stager")


@asynccontextmanager
async def serving(
    oban: Oban, host: str, port: int, *, registry: CollectorRegistry = REGISTRY
) -> AsyncIterator[int]:
    """Serve the endpoint of a node for a block, which gets the port.

    port: 0 for any free port.

    `/metrics` is for Prometheus. `/health` checks that the event loop answers. `/ready` also checks
    that the node listens and claims, and that its database answers. Both return 200, or 503 with
    the reasons. `OSError` if the address is not available.
    """
    app = _Endpoint(oban, asyncio.get_running_loop(), registry)
    kind = _Server6 if ":" in host else _Server
    # In a thread, since `make_server` looks up the name of the host.
    server = await asyncio.to_thread(make_server, host, port, app, kind, _Handler)
    thread = threading.Thread(target=server.serve_forever, name="oban-endpoint", daemon=True)
    thread.start()
    check_ups = CheckUps(oban)
    await check_ups.start()
    try:
        yield server.server_port
    finally:
        await check_ups.stop()
        await asyncio.to_thread(server.shutdown)
        server.server_close()


async def unready(oban: Oban) -> list[str]:
    """The reasons why a node is not ready to run jobs; empty if it is ready."""
    vitals = oban.vitals
    if vitals is None:
        return ["the node runs no queues"]
    reasons = [
        f"{service} failed {count} times in a row"
        for service, count in vitals.failures.items()
        if service.startswith(_CLAIMING)
    ]
    if vitals.listening is False:
        reasons.append("LISTEN does not work, so queues poll")
    if vitals.stopping:
        reasons.append("the node is stopping")
    try:
        async with asyncio.timeout(PATIENCE):
            await oban.ping()
    except Exception as error:
        # Only the type of the error: its message may name hosts and users.
        reasons.append(f"the database does not answer: {type(error).__name__}")
    return reasons


class _Endpoint:
    """The WSGI application."""

    def __init__(
        self, oban: Oban, loop: asyncio.AbstractEventLoop, registry: CollectorRegistry
    ) -> None:
        self._oban = oban
        self._loop = loop
        self._registry = registry

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            metrics: Any = make_wsgi_app(prometheus.exposed(self._registry))
            body: Iterable[bytes] = metrics(environ, start)
            return body
        if path == "/health":
            return _answer(start, self._ask(_nothing))
        if path == "/ready":
            return _answer(start, self._ask(lambda: unready(self._oban)))
        start("404 Not Found", [("Content-Type", "text/plain")])
        return [b"there are /metrics, /health and /ready\n"]

    def _ask(self, question: Callable[[], Awaitable[list[str]]]) -> list[str]:
        async def answer() -> list[str]:
            return await question()

        try:
            asked = asyncio.run_coroutine_threadsafe(answer(), self._loop)
        except RuntimeError:
            return ["the event loop has ended"]
        try:
            return asked.result(2 * PATIENCE)
        except TimeoutError:
            asked.cancel()
            return [f"the event loop has not answered for {2 * PATIENCE:g} s: a worker blocks it"]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 30.0  # a client that sends nothing holds a thread

    def log_message(self, format: str, *args: Any) -> None:
        """Log no line for each scrape."""


async def _nothing() -> list[str]:
    return []


def _answer(start: StartResponse, reasons: list[str]) -> Iterable[bytes]:
    status = "503 Service Unavailable" if reasons else "200 OK"
    start(status, [("Content-Type", "application/json")])
    return [json.dumps({"ok": not reasons, "reasons": reasons}).encode() + b"\n"]
