"""`oban-sqla start`: a process that runs the jobs of its queues until it is told to stop."""

import asyncio
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from enum import StrEnum
from functools import partial
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from ..embedded import EmbeddedPostgres, embedded_postgres
from ..instances import DEFAULT_NAME
from ..migrations import upgrade
from ..migrations.database import engine_for
from ..oban import Oban
from .failures import fail, told_in_one_line

logger = logging.getLogger("oban_sqla")

FORM_OF_QUEUES = "NAME:LIMIT,..."


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class StartCommand(TyperCommand):
    """Lets `--embedded` stand alone: Typer has no word for an option whose value may be missing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_with_values(args, "--embedded")))


def start(
    modules: Annotated[
        list[str],
        typer.Option("--import", metavar="MODULE", help="A module with workers; may be repeated."),
    ],
    queues: Annotated[
        str,
        typer.Option(
            metavar=FORM_OF_QUEUES,
            help="The queues to run, and how many jobs of each at once: default:10,mailers:20",
        ),
    ],
    dsn: Annotated[
        str | None,
        typer.Option(
            envvar="OBAN_DSN",
            metavar="URL",
            help="The database: postgresql://user:password@host/name",
        ),
    ] = None,
    embedded: Annotated[
        str | None,
        typer.Option(
            metavar="[DIR]",
            show_default=False,
            help="Bring up a PostgreSQL of its own, with the tables in it, instead of --dsn."
            " It keeps its data in DIR; without one, they are gone in the end.",
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEMA", help="The PostgreSQL schema of the tables, if not the default."
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(help="The instance: shared by the nodes that work together.")
    ] = DEFAULT_NAME,
    node: Annotated[
        str | None,
        typer.Option(help="This process among them; host name and process id by default."),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="How long a stop waits for running jobs."),
    ] = 15.0,
    log_level: Annotated[LogLevel, typer.Option(case_sensitive=False)] = LogLevel.INFO,
) -> None:
    """Run jobs until SIGTERM or SIGINT; a second one ends it at once."""
    if dsn is None and embedded is None:
        raise typer.BadParameter("name the database with --dsn or OBAN_DSN, or use --embedded")
    limits = _limits(queues)
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    for module in modules:
        _import(module)
    with told_in_one_line():
        server = None if embedded is None else embedded_postgres(embedded or None)
        node_settings = {
            "queues": limits,
            "prefix": prefix,
            "name": name,
            "node": node,
            "shutdown_grace_period": grace,
        }
        asyncio.run(_Process(dsn, server, node_settings).run())


class _Process:
    """The life of the process: up, until a signal, and down again."""

    def __init__(
        self, dsn: str | None, server: EmbeddedPostgres | None, settings: dict[str, Any]
    ) -> None:
        self._dsn = dsn
        self._server = server
        self._settings = settings
        self._stopping = asyncio.Event()
        self._started = False
        self._told = False

    async def run(self) -> None:
        running = asyncio.create_task(self._run())
        receive = partial(self._receive, asyncio.get_running_loop(), running)
        for number in (signal.SIGTERM, signal.SIGINT):
            # Not the loop's own handlers: a worker that blocks the loop would block those too.
            signal.signal(number, receive)
        await asyncio.wait([running])
        if not running.cancelled():
            running.result()

    async def _run(self) -> None:
        async with AsyncExitStack() as up:
            dsn = self._dsn
            if self._server is not None:
                dsn = await up.enter_async_context(self._server)
                await asyncio.to_thread(_install, dsn, self._settings["prefix"])
                typer.echo(f"PostgreSQL is up: {dsn}")
            assert dsn is not None
            oban = await up.enter_async_context(Oban(dsn, **self._settings))
            self._started = True
            logger.info("node %s runs %s", oban.node, ", ".join(self._settings["queues"]))
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
        elif self._started or self._server is None:  # a half-started server must not be left alone
            self._end_at_once(number)

    def _stop(self, name: str, running: asyncio.Task[None]) -> None:
        if not self._started:
            running.cancel()
            return
        logger.info(
            "%s: stopping, %g s for the running jobs; a second signal ends them at once",
            name,
            self._settings["shutdown_grace_period"],
        )
        self._stopping.set()

    def _end_at_once(self, number: int) -> NoReturn:
        # Not the logger: this may have interrupted it.
        os.write(2, b"oban-sqla: a second signal: ended at once, running jobs are abandoned\n")
        if self._server is not None:
            self._server.__exit__()  # os._exit would leave it running
        os._exit(128 + number)


def _install(dsn: str, prefix: str | None) -> None:
    with engine_for(dsn).begin() as connection:
        upgrade(connection, prefix=prefix)


def _limits(queues: str) -> dict[str, int]:
    limits: dict[str, int] = {}
    for part in queues.split(","):
        name, _, limit = part.strip().rpartition(":")
        if not name.strip() or not limit.isdecimal() or int(limit) == 0:
            raise typer.BadParameter(
                f"{part!r} is not a queue with its limit, like default:10", param_hint="--queues"
            )
        if name in limits:
            raise typer.BadParameter(f"queue {name!r} is there twice", param_hint="--queues")
        limits[name] = int(limit)
    return limits


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        cause = traceback.format_exception_only(error)[-1].strip()
        fail(f"can't import {module!r}: {cause}{_place(error)}")


def _place(error: BaseException) -> str:
    """Where in the user's code an import failed, if it came that far."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (__file__, importlib.__file__)
        and not frame.filename.startswith("<frozen importlib")
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _with_values(arguments: Sequence[str], option: str) -> Iterator[str]:
    """The arguments, with an empty value after the option where none was given."""
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        yield argument
        if argument == option and following.startswith("-"):
            yield ""
