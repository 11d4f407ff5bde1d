"""`oban-sqla jobs enqueue`: enqueue a job of a worker by hand."""

from datetime import datetime
from typing import Annotated, Any

import typer

from ..monitor.browse import describe
from ..oban import Oban
from ..runtime.database import Database
from .configuration import ask, configured, name_database
from .failures import told_in_one_line
from .known_workers import known_worker
from .options import Config, Dsn, Imports, Json, Prefix
from .output import document
from .selecting import parse_duration, parse_object


def enqueue_job(
    worker: Annotated[
        str, typer.Argument(metavar="WORKER", help="The worker, or the last part of its name.")
    ],
    args: Annotated[
        Any,
        typer.Argument(parser=parse_object, metavar="JSON", help="The arguments: '{\"id\": 7}'."),
    ] = "{}",
    delay: Annotated[
        float | None,
        typer.Option(
            "--in",
            parser=parse_duration,
            metavar="DURATION",
            help="Run the job later: 30s, 15m, 2h.",
        ),
    ] = None,
    at: Annotated[
        datetime | None, typer.Option(help="Run the job at a time in UTC: 2026-12-01T09:00:00.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="The queue, instead of the worker's.")] = None,
    priority: Annotated[int | None, typer.Option(help="From 0, which runs first, to 9.")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="How often the job is tried.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="A tag of the job; may be repeated.")
    ] = None,
    modules: Imports = None,
    dsn: Dsn = None,
    prefix: Prefix = None,
    path: Config = None,
    as_document: Json = False,
) -> None:
    """Enqueue a job. The worker's module is imported, so the worker's options apply."""
    settings = configured(path, imports=modules or None, dsn=dsn, prefix=prefix)
    declaration = known_worker(settings, worker)
    options: dict[str, Any] = {
        "schedule_in": delay,
        "scheduled_at": at,
        "queue": queue,
        "priority": priority,
        "max_attempts": max_attempts,
        "tags": tag or None,
    }
    given: Any = {name: value for name, value in options.items() if value is not None}
    with told_in_one_line():
        job = declaration.new_job(args, given)
    name_database(settings)

    async def enqueue(database: Database) -> dict[str, Any]:
        await Oban(database.engine, prefix=await database.verify()).enqueue(job)
        return (await describe(database, job.id))[job.id]

    stored = ask(settings, enqueue)
    if as_document:
        document(stored)
    elif job.conflict:
        typer.echo(f"not enqueued: {declaration.name} is unique, and job {job.id} is a duplicate")
    else:
        when = f", at {stored['scheduled_at']:%Y-%m-%d %H:%M:%S} UTC" if delay or at else ""
        queue_name = stored["queue"]
        typer.echo(f"enqueued job {job.id} of {declaration.name} in queue {queue_name}{when}")
