"""`NodeProcess`: run a node in this process until a signal stops it."""

import asyncio
import logging
import os
import signal
from contextlib import AsyncExitStack
from functools import partial
from types import FrameType
from typing import NoReturn

import typer

from ..embedded import EmbeddedPostgres
from ..migrations import upgrade
from ..migrations.database import engine_for
from ..oban import Oban
from ..settings import Settings
from . import telemetry
from .event_loop import loop_name

logger = logging.getLogger("oban_sqla")


class NodeProcess:
    """Start the node, wait for a signal, and stop the node."""

    def __init__(self, settings: Settings, server: EmbeddedPostgres | None) -> None:
        self._settings = settings
        self._server = server
        self._stopping = asyncio.Event()
        self._started = False
        self._told = False

    async def run(self) -> None:
        running = asyncio.create_task(self._run())
        receive = partial(self._receive, asyncio.get_running_loop(), running)
        for number in (signal.SIGTERM, signal.SIGINT):
            # A worker that blocks the event loop would also block the loop's own signal handlers.
            signal.signal(number, receive)
        await asyncio.wait([running])
        if not running.cancelled():
            running.result()

    async def _run(self) -> None:
        async with AsyncExitStack() as up:
            dsn, arguments = None, self._settings.arguments
            if self._server is not None:
                dsn = await up.enter_async_context(self._server)
                await asyncio.to_thread(_install, dsn, self._settings.config.prefix)
                typer.echo(f"PostgreSQL is up: {dsn}")
                arguments.pop("listen_dsn", None)  # the setting names another server
            database = self._settings.database(dsn)
            assert database is not None
            if self._settings.tracing:
                telemetry.trace(up)
            if self._settings.metrics is not None:
                telemetry.measure()
            oban = Oban(database, **arguments)
            await up.enter_async_context(oban)
            if self._settings.metrics is not None:
                port = await telemetry.serve(up, oban, self._settings.metrics)
                logger.info("metrics, health and readiness are served at port %d", port)
            self._started = True
            queues = ", ".join(queue.name for queue in self._settings.config.queues)
            logger.info("node %s runs %s, on %s", oban.node, queues, loop_name())
            for note in self._settings.notes:
                logger.warning(note)
            await self._stopping.wait()
        logger.info("stopped")

    def _receive(
        self,
        loop: asyncio.AbstractEventLoop,
        running: asyncio.Task[None],
        number: int,
        frame: FrameType | None,
    ) -> None:
        if not self._told:
            self._told = True
            loop.call_soon_threadsafe(self._stop, signal.Signals(number).name, running)
        elif self._started or self._server is None:  # never leave a half-started server behind
            self._end_at_once(number)

    def _stop(self, name: str, running: asyncio.Task[None]) -> None:
        if not self._started:
            running.cancel()
            return
        logger.info(
            "%s: stopping, %g s for the running jobs; a second signal ends them at once",
            name,
            self._settings.config.shutdown_grace_period,
        )
        self._stopping.set()

    def _end_at_once(self, number: int) -> NoReturn:
        # os.write, because the signal may have interrupted the logger.
        os.write(2, b"oban-sqla: a second signal: ended at once, running jobs are abandoned\n")
        if self._server is not None:
            self._server.__exit__()  # os._exit would leave the server running
        os._exit(128 + number)


def _install(dsn: str, prefix: str | None) -> None:
    with engine_for(dsn).begin() as connection:
        upgrade(connection, prefix=prefix)
