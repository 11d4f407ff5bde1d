"""`oban-sqla bench`: what the server does, measured in a schema of its own."""

import asyncio
import signal
from typing import Annotated

import typer

from ..bench import Figure, measure, temporary_schema
from .configuration import configured, dsn_of
from .failures import told_in_one_line, warn
from .options import Config, Dsn, Json
from .output import Columns, document, table

COLUMNS: Columns = {"measured": "left", "": "right", "unit": "left"}


def bench(
    dsn: Dsn = None,
    seconds: Annotated[
        float,
        typer.Option(min=1, max=300, help="How long to measure, in all; less than 20 tell little."),
    ] = 60.0,
    path: Config = None,
    as_document: Json = False,
) -> None:
    """Measure what this server does, and this host with it: enqueueing, running jobs, pickup.

    Beside them stands the bare SQL that does the same work on the rows, one connection, no workers:
    the ratio is what the library costs, the rest is the server and the way to it. One process is
    measured, with jobs that do nothing; more processes run more.

    It makes a schema of its own, needs the right to do so, and drops it in the end, also after
    Ctrl-C or SIGTERM. It commits all the time and writes some hundred megabytes: not for a server
    that is busy.
    """
    dsn = dsn_of(configured(path, dsn=dsn))
    with told_in_one_line(), temporary_schema(dsn) as schema:
        warn(f"measures for {seconds:g} s in the schema {schema}, which is dropped in the end")
        try:
            figures = asyncio.run(_measured(dsn, schema, seconds))
        except asyncio.CancelledError:
            raise typer.Exit(128 + signal.SIGTERM) from None
    if as_document:
        document(figures)
    else:
        table(COLUMNS, ((one.measured, _number(one.value), one.unit) for one in figures))


async def _measured(dsn: str, schema: str, seconds: float) -> list[Figure]:
    """All figures; each is told when it is known, for those who wait."""
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    figures = []
    async for figure in measure(dsn, schema, seconds):
        warn(f"{figure.measured}: {_number(figure.value)} {figure.unit}")
        figures.append(figure)
    return figures


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"
