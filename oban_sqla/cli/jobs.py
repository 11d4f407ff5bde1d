"""`oban-sqla jobs`: list jobs, and show one job."""

from typing import Annotated, Any

import typer

from ..durations import duration
from ..limits.why import why
from ..models.job_id import LARGEST_ID
from ..models.state import STAGEABLE
from ..monitor.browse import Listed, browse, describe
from ..monitor.job_queries import Filters
from ..monitor.status import Count, totals
from ..runtime.database import Database
from . import changes, enqueue
from .configuration import ask, configured
from .failures import fail
from .options import Config, Dsn, Json, Prefix
from .output import Columns, as_json, cut, document, plain, table
from .selecting import (
    Args,
    Ids,
    NewerThan,
    OlderThan,
    Queue,
    States,
    Tags,
    Worker,
    with_full_name,
)
from .status import counted

Id = Annotated[int, typer.Argument(metavar="ID", min=1, max=LARGEST_ID, help="The id of the job.")]

COLUMNS: Columns = {
    "id": "right",
    "state": "left",
    "queue": "left",
    "worker": "left",
    "args": "left",
    "tags": "left",
    "attempt": "right",
    "age": "left",
    "due": "left",
    "last error": "left",
}
# The most characters of arguments in the list. `jobs show` shows all of them.
LONGEST_ARGS = 40

app = typer.Typer(help="List, enqueue, retry, cancel or delete jobs.", no_args_is_help=True)


@app.command("list")
def list_jobs(
    ids: Ids = None,
    state: States = None,
    queue: Queue = None,
    worker: Worker = None,
    args: Args = None,
    tag: Tags = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The most jobs to list.")] = 20,
    dsn: Dsn = None,
    prefix: Prefix = None,
    path: Config = None,
    as_document: Json = False,
) -> None:
    """List the newest jobs, and count all jobs by state.

    ~ marks an estimate. With --json, each job has all its columns.
    """
    wanted = Filters(
        tuple(ids or ()),
        tuple(state or ()),
        queue,
        worker,
        older_than,
        newer_than,
        args,
        tuple(tag or ()),
    )
    settings = configured(path, dsn=dsn, prefix=prefix)

    async def read(database: Database) -> tuple[dict[str, Count], list[Listed], dict[int, Any]]:
        filters = await with_full_name(database, wanted)
        jobs = await browse(database, filters, limit=limit)
        if as_document:
            return {}, jobs, await describe(database, *(job.id for job in jobs))
        return await totals(database), jobs, {}

    counts, jobs, details = ask(settings, read)
    if as_document:
        document([_everything(job, details) for job in jobs if job.id in details])
        return
    if counts:
        sums = (f"{counted(count)} {plain(state)}" for state, count in counts.items())
        typer.echo(f"in the database: {', '.join(sums)}\n")
    if jobs:
        table(COLUMNS, map(_row, jobs))
    else:
        typer.echo("no jobs")


@app.command("show")
def show_job(
    id: Id,
    dsn: Dsn = None,
    prefix: Prefix = None,
    path: Config = None,
    as_document: Json = False,
) -> None:
    """Show one job: its arguments, times, errors, and recorded value."""
    settings = configured(path, dsn=dsn, prefix=prefix)

    async def read(database: Database) -> tuple[Any, str | None]:
        return (await describe(database, id)).get(id), await why(database, id)

    job, reason = ask(settings, read)
    if job is None:
        fail(f"there is no job {id}")
    if as_document:
        document(job)
        return
    for name, value in job.items():
        if name != "errors" and not (name == "recorded" and value is None):
            structured = isinstance(value, dict | list) or name == "recorded"
            typer.echo(f"{name:<12}  {plain(as_json(value) if structured else value)}".rstrip())
    typer.echo(f"{'why':<12}  {plain(reason)}")
    _tell_errors(job["errors"])


@app.command("why")
def explain_job(
    id: Id,
    dsn: Dsn = None,
    prefix: Prefix = None,
    path: Config = None,
) -> None:
    """Say in one sentence why a job waits, or what became of it."""
    settings = configured(path, dsn=dsn, prefix=prefix)
    reason = ask(settings, lambda database: why(database, id))
    if reason is None:
        fail(f"there is no job {id}")
    typer.echo(plain(reason))


app.command("enqueue")(enqueue.enqueue_job)
changes.add_to(app)


def _everything(job: Listed, details: dict[int, Any]) -> dict[str, Any]:
    more = {"age": job.age, "due_in": job.due_in, "error": job.error}
    return {**details[job.id], **more}


def _row(job: Listed) -> tuple[object, ...]:
    due = ""
    if job.state in STAGEABLE:
        due = _due(job)
    args = cut(as_json(job.args), LONGEST_ARGS)
    attempt = f"{job.attempt}/{job.max_attempts}"
    tags = ", ".join(map(str, job.tags or ()))
    age = str(job.inserted_at) if job.age is None else duration(job.age)
    what = (job.id, job.state, job.queue, job.worker, args, tags)
    return *what, attempt, age, due, job.error


def _due(job: Listed) -> str:
    if job.due_in is None:
        return str(job.scheduled_at)
    return f"in {duration(job.due_in)}" if job.due_in > 0 else "now"


def _tell_errors(errors: Any) -> None:
    """Print our errors as text. Errors of an unknown form, written by other programs, are JSON."""
    if not errors:
        return
    typer.echo("errors")
    for error in errors if isinstance(errors, list) else [errors]:
        if not isinstance(error, dict) or not isinstance(error.get("error"), str):
            typer.echo(f"  {plain(as_json(error))}")
            continue
        typer.echo(f"  attempt {plain(error.get('attempt'))}, {plain(error.get('at'))}")
        for line in error["error"].splitlines():
            typer.echo(f"    {plain(line)}".rstrip())
