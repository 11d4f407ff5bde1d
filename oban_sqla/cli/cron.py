"""`oban-sqla cron`: list the cron entries of the workers, and run one of them now."""

from functools import partial
from typing import Annotated

import typer

from ..clock import client_now
from ..monitor.cron_status import EntryStatus, cron_status
from ..oban import Oban
from ..runtime.cron import job_of_tick
from ..runtime.database import Database
from .configuration import ask, configured, name_database
from .failures import fail
from .known_workers import known_worker
from .modules import import_all
from .options import Config, Dsn, Imports, Json, Name, Prefix
from .output import Columns, document, table

COLUMNS: Columns = {
    "worker": "left",
    "expression": "left",
    "zone": "left",
    "queue": "left",
    "next tick": "left",
    "last tick": "left",
    "last job": "left",
}

app = typer.Typer(help="List the cron entries of your workers, or run one.", no_args_is_help=True)


@app.command("list")
def list_entries(
    modules: Imports = None,
    dsn: Dsn = None,
    prefix: Prefix = None,
    name: Name = None,
    path: Config = None,
    as_document: Json = False,
) -> None:
    """List the cron entries of the imported workers, with their next and last ticks in UTC."""
    settings = configured(path, imports=modules or None, dsn=dsn, prefix=prefix, name=name)
    for complaint in import_all(settings.imports):
        fail(complaint)
    config = settings.config
    entries = ask(settings, partial(cron_status, instance=config.name, timezone=config.timezone))
    if as_document:
        document(entries)
    elif entries:
        table(COLUMNS, map(_row, entries))
    else:
        typer.echo("no imported worker has a cron entry")


@app.command("run")
def run_entry(
    worker: Annotated[
        str, typer.Argument(metavar="WORKER", help="The worker, or the last part of its name.")
    ],
    modules: Imports = None,
    dsn: Dsn = None,
    prefix: Prefix = None,
    path: Config = None,
) -> None:
    """Enqueue the job of a cron entry now."""
    settings = configured(path, imports=modules or None, dsn=dsn, prefix=prefix)
    declaration = known_worker(settings, worker)
    cron = declaration.cron
    if cron is None:
        fail(f"{declaration.name} has no cron entry; see `oban-sqla jobs enqueue`")
    name_database(settings)
    job = job_of_tick(declaration, cron, client_now(), settings.config.timezone)

    async def enqueue(database: Database) -> None:
        await Oban(database.engine, prefix=await database.verify()).enqueue(job)

    ask(settings, enqueue)
    typer.echo(f"enqueued job {job.id} of {declaration.name} in queue {job.queue}")


def _row(entry: EntryStatus) -> tuple[object, ...]:
    ticks = (
        "" if tick is None else f"{tick:%Y-%m-%d %H:%M}"
        for tick in (entry.next_tick, entry.last_tick)
    )
    last = "" if entry.last_job is None else f"{entry.last_job} {entry.last_state}"
    if entry.last_run is not None:
        last = f"{last}, ran {entry.last_run:%Y-%m-%d %H:%M}"
    return entry.worker, entry.expr, entry.timezone, entry.queue, *ticks, last
