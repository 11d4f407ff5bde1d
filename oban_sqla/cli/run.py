"""`oban-sqla start`: run the jobs of the queues until a signal stops the process."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from enum import StrEnum
from functools import partial
from itertools import zip_longest
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from ..contrib.json_log import JsonFormatter
from ..embedded import EmbeddedPostgres, embedded_postgres
from ..migrations import upgrade
from ..migrations.database import engine_for
from ..oban import Oban
from ..settings import Settings, parse_queues
from . import telemetry
from .configuration import configured, missing
from .event_loop import loop_factory, loop_name
from .failures import fail, told_in_one_line
from .modules import import_all
from .options import Config, Dsn, Imports, Name, Prefix
from .reload import OPTION as RELOAD
from .reload import run_reloading

logger = logging.getLogger("oban_sqla")

FORM_OF_QUEUES = "NAME:LIMIT,..."


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


class StartCommand(TyperCommand):
    """Allows `--embedded` without a value: Typer has no options with optional values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_with_values(args, "--embedded")))


def start(
    modules: Imports = None,
    queues: Annotated[
        str | None,
        typer.Option(
            metavar=FORM_OF_QUEUES,
            help="The queues and how many jobs of each run at once: default:10,mailers:20",
        ),
    ] = None,
    dsn: Dsn = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="The import path of your engine, instead of --dsn: shop:engine",
        ),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="The import path of your async_sessionmaker for workers: shop:Session",
        ),
    ] = None,
    pool_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The largest pool of connections. Default: as many as the queues need.",
        ),
    ] = None,
    embedded: Annotated[
        str | None,
        typer.Option(
            metavar="[DIR]",
            show_default=False,
            help="Start a PostgreSQL of its own and install the tables, instead of --dsn."
            " DIR keeps the data; without DIR, the data is deleted at the end.",
        ),
    ] = None,
    prefix: Prefix = None,
    name: Name = None,
    node: Annotated[
        str | None,
        typer.Option(help="The name of this process. Default: host name and process id."),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="How long a stop waits for running jobs. Default: 15."
        ),
    ] = None,
    path: Config = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve /metrics, /health and /ready here. :9100 means every interface.",
        ),
    ] = None,
    tracing: Annotated[
        bool | None,
        typer.Option(
            "--tracing",
            help="Send traces by OTLP. The OTEL_EXPORTER_OTLP_* variables configure it.",
        ),
    ] = None,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(case_sensitive=False, help="The lowest level to log. Default: info."),
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(case_sensitive=False, help="The format of the log. Default: text."),
    ] = None,
    reload: Annotated[
        bool,
        typer.Option(
            RELOAD, help="For development: restart when a file of this directory changes."
        ),
    ] = False,
) -> None:
    """Run jobs until SIGTERM or SIGINT. A second signal ends the process at once.

    Each option is also a setting: a variable such as OBAN_QUEUES, or a line in oban.toml or
    pyproject.toml. The command line overrides variables, and variables override the file.
    """
    if reload:
        run_reloading([one for one in sys.argv[1:] if one != RELOAD])
    settings = configured(
        path,
        imports=modules or None,
        queues=None if queues is None else _limits(queues),
        dsn=dsn,
        engine=engine,
        session=session,
        pool_size=pool_size,
        prefix=prefix,
        name=name,
        node=node,
        shutdown_grace_period=grace,
        metrics=metrics,
        tracing=tracing,
        log_level=log_level and log_level.value,
        log_format=log_format and log_format.value,
    )
    if not settings.names_database and embedded is None:
        raise missing("dsn", "--dsn", '"postgresql://..."', "; or use --embedded")
    if not settings.config.queues:
        raise missing("queues", "--queues", "{ default = 10 }")
    if not settings.imports:
        raise missing("imports", "--import", '["app.workers"]')
    _log(settings)
    for complaint in import_all(settings.imports):
        fail(complaint)
    with told_in_one_line():
        if settings.dsn is None and embedded is None:
            settings.database()  # a mistake in an import path is told now
        server = None if embedded is None else embedded_postgres(embedded or None)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_Process(settings, server).run())


class _Process:
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
                arguments.pop("listen_dsn", None)  # it names another server
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


def _limits(queues: str) -> dict[str, Any]:
    try:
        return parse_queues(queues)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--queues") from None


def _log(settings: Settings) -> None:
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else text)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])


def _with_values(arguments: Sequence[str], option: str) -> Iterator[str]:
    """The arguments, with an empty value after each `option` that has no value."""
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue="--"):
        yield argument
        if argument == option and following.startswith("-"):
            yield ""
