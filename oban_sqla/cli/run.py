"""`oban-sqla start`: run the jobs of the queues until a signal stops the process."""

import asyncio
import gc
import logging
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import zip_longest
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ..contrib.json_log import JsonFormatter
from ..embedded import embedded_postgres
from ..settings import Settings, parse_queues
from .configuration import configured, missing
from .event_loop import loop_factory
from .failures import fail, told_in_one_line
from .modules import import_all
from .node_process import NodeProcess
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
    _require(settings, embedded=embedded is not None)
    _log(settings)
    for complaint in import_all(settings.imports):
        fail(complaint)
    # A full collection walks over all modules. No job begins in the 60 ms that it takes.
    gc.collect()
    gc.freeze()
    with told_in_one_line():
        if settings.dsn is None and embedded is None:
            settings.database()  # a mistake in an import path is reported now
        server = None if embedded is None else embedded_postgres(embedded or None)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(NodeProcess(settings, server).run())


def _require(settings: Settings, *, embedded: bool) -> None:
    """End the command if a setting is missing without which nothing can run."""
    if not settings.names_database and not embedded:
        raise missing("dsn", "--dsn", '"postgresql://..."', "; or use --embedded")
    if not settings.config.queues:
        raise missing("queues", "--queues", "{ default = 10 }")
    if not settings.imports:
        raise missing("imports", "--import", '["app.workers"]')


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
