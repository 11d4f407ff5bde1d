"""`oban-sqla bench`: measure the server, in a schema of its own."""

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
        typer.Option(
            min=1, max=300, help="How long to measure in all. Below 20 the figures mean little."
        ),
    ] = 60.0,
    path: Config = None,
    as_document: Json = False,
) -> None:
    """Measure this host and this server: enqueueing, running jobs, and the pickup of a job.

    Bare SQL does the same work on the rows for comparison, on one connection and without workers.
    The ratio is the cost of the library; the rest is the server and the network. The jobs do
    nothing, and one process runs them; several processes run more.

    The command creates a schema of its own and drops it at the end, also after Ctrl-C or SIGTERM.
    The role needs the right to create schemas. The command commits all the time and writes some
    hundred megabytes, so do not run it on a busy server.
    """
    dsn = dsn_of(configured(path, dsn=dsn))
    with told_in_one_line(), temporary_schema(dsn) as schema:
        warn(f"measuring for {seconds:g} s in the schema {schema}, which is dropped at the end")
        try:
            figures = asyncio.run(_measured(dsn, schema, seconds))
        except asyncio.CancelledError:
            raise typer.Exit(128 + signal.SIGTERM) from None
    if as_document:
        document(figures)
    else:
        table(COLUMNS, ((one.measured, _number(one.value), one.unit) for one in figures))


async def _measured(dsn: str, schema: str, seconds: float) -> list[Figure]:
    """Measure all figures, and print each to stderr as soon as it is known."""
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
