"""`oban-sqla jobs`: look at jobs, and retry, cancel or delete them."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import Select

from ..clock import LONGEST_INTERVAL
from ..enqueue.chosen import LARGEST_ID
from ..models import JobState
from ..models.state import STAGEABLE
from ..oban import Oban
from ..runtime.browse import Listed, Selection, Tally, browse, describe
from ..runtime.database import Database
from ..runtime.findings import duration
from ..settings import Settings
from ..statements.browse import Filters
from ..statements.cancel import CANCELLABLE
from ..statements.delete import DELETABLE
from ..statements.retry import RETRYABLE
from .configuration import ask, configured, name_database
from .failures import fail, warn
from .options import Config, Dsn, Json, Prefix, Yes
from .output import Columns, as_json, document, plain, table

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    length = float(found[1]) * UNITS[found[2]] if found else LONGEST_INTERVAL
    if length >= LONGEST_INTERVAL:
        raise typer.BadParameter(f"{text!r} is no duration, like 30s, 15m, 2h or 7d")
    return length


Ids = Annotated[
    list[int] | None,
    typer.Argument(metavar="ID", min=1, max=LARGEST_ID, show_default=False),
]
States = Annotated[
    list[JobState] | None,
    typer.Option(
        "--state", metavar="STATE", help="In this state, like retryable; may be repeated."
    ),
]
Queue = Annotated[str | None, typer.Option(help="In this queue.")]
Worker = Annotated[str | None, typer.Option(help="Of the worker with this name.")]
OlderThan = Annotated[
    float | None,
    typer.Option(
        parser=_duration, metavar="DURATION", help="Enqueued longer ago: 30s, 15m, 2h, 7d."
    ),
]
NewerThan = Annotated[
    float | None,
    typer.Option(parser=_duration, metavar="DURATION", help="Enqueued not so long ago."),
]

COLUMNS: Columns = {
    "id": "right",
    "state": "left",
    "queue": "left",
    "worker": "left",
    "attempt": "right",
    "age": "left",
    "due": "left",
    "last error": "left",
}

app = typer.Typer(help="Look at jobs; retry, cancel or delete them.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class _Change:
    """What is done to jobs: the word for it, and for the outcome, and where it is possible."""

    verb: str
    done: str
    states: tuple[JobState, ...]
    make: Callable[[Oban, Select[Any]], Awaitable[int]]


@app.command("list")
def list_jobs(
    ids: Ids = None,
    state: States = None,
    queue: Queue = None,
    worker: Worker = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="So many at most.")] = 20,
    dsn: Dsn = None,
    prefix: Prefix = None,
    path: Config = None,
    as_document: Json = False,
) -> None:
    """List the newest jobs, all or those that are asked for."""
    filters = Filters(tuple(ids or ()), tuple(state or ()), queue, worker, older_than, newer_than)
    settings = configured(path, dsn=dsn, prefix=prefix)
    jobs = ask(settings, partial(browse, filters=filters, limit=limit))
    if as_document:
        document(jobs)
    elif not jobs:
        typer.echo("no jobs")
    else:
        table(COLUMNS, map(_row, jobs))


@app.command("show")
def show_job(
    id: Annotated[int, typer.Argument(metavar="ID", min=1, max=LARGEST_ID)],
    dsn: Dsn = None,
    prefix: Prefix = None,
    path: Config = None,
    as_document: Json = False,
) -> None:
    """Show all there is of a job: its arguments, times and errors."""
    settings = configured(path, dsn=dsn, prefix=prefix)
    job = ask(settings, partial(describe, id=id))
    if job is None:
        fail(f"there is no job {id}")
    if as_document:
        document(job)
        return
    for name, value in job.items():
        if name != "errors":
            structured = isinstance(value, dict | list)
            typer.echo(f"{name:<12}  {plain(as_json(value) if structured else value)}".rstrip())
    _tell_errors(job["errors"])


def _add(change: _Change, help: str) -> None:
    @app.command(change.verb, help=help)
    def command(
        ids: Ids = None,
        state: States = None,
        queue: Queue = None,
        worker: Worker = None,
        older_than: OlderThan = None,
        newer_than: NewerThan = None,
        every: Annotated[bool, typer.Option("--all", help="All jobs, of whatever kind.")] = False,
        limit: Annotated[
            int | None, typer.Option(min=1, help="So many at most, the oldest first.")
        ] = None,
        yes: Yes = False,
        dsn: Dsn = None,
        prefix: Prefix = None,
        path: Config = None,
        as_document: Json = False,
    ) -> None:
        filters = Filters(
            tuple(ids or ()), tuple(state or ()), queue, worker, older_than, newer_than
        )
        if filters == Filters() and not every:
            raise typer.BadParameter("name jobs by ids or filters, or give --all")
        if filters != Filters() and every:
            raise typer.BadParameter("--all leaves nothing out: give it without ids and filters")
        if as_document and not yes:
            raise typer.BadParameter("--json can't ask: give --yes, too")
        settings = configured(path, dsn=dsn, prefix=prefix)
        selection = Selection(filters, change.states, limit=limit)
        tally = ask(settings, selection.tally)
        name_database(settings)
        if tally.total and not yes and not typer.confirm(_question(change, tally, filters)):
            fail("nothing was changed")
        changed = _make(change, settings, selection, tally) if tally.total else 0
        if as_document:
            document({"found": tally.total, change.done: changed})
        elif not tally.total:
            typer.echo(f"there are no such jobs to {change.verb}")
        else:
            typer.echo(f"{change.done} {_jobs(changed)}{_running(change, tally)}")


_add(
    _Change("retry", "retried", RETRYABLE, Oban.retry_jobs),
    "Make jobs available now, with an attempt left; not those that are or that run.",
)
_add(
    _Change("cancel", "cancelled", CANCELLABLE, Oban.cancel_jobs),
    "Cancel jobs that are not finished; those that run are told to stop.",
)
_add(
    _Change("delete", "deleted", DELETABLE, Oban.delete_jobs),
    "Delete jobs, but none that runs.",
)


def _make(change: _Change, settings: Settings, selection: Selection, tally: Tally) -> int:
    """Make a change, batch by batch, and return how many jobs it was made to."""
    changed = 0

    async def make(database: Database) -> None:
        nonlocal changed
        schema = await database.verify()
        oban = Oban(database.engine, prefix=schema)
        terminal = Console(stderr=True)
        with Progress(console=terminal, disable=not terminal.is_terminal, transient=True) as bar:
            task = bar.add_task(change.verb, total=tally.total)
            async for count, batch in selection.batches(database, tally):
                changed += await change.make(oban, batch)
                bar.advance(task, count)

    try:
        ask(settings, make)
    except BaseException:
        if changed:
            warn(f"interrupted: {change.done} {_jobs(changed)} of {tally.total:,}")
        raise
    return changed


def _question(change: _Change, tally: Tally, filters: Filters) -> str:
    states = ", ".join(f"{count:,} {state}" for state, count in tally.counts.items())
    which = [
        f" of queue {plain(filters.queue)}" if filters.queue is not None else "",
        f" of worker {plain(filters.worker)}" if filters.worker is not None else "",
        f", older than {duration(filters.older_than)}" if filters.older_than is not None else "",
        f", newer than {duration(filters.newer_than)}" if filters.newer_than is not None else "",
    ]
    return f"{change.verb.capitalize()} {_jobs(tally.total)} ({states}){''.join(which)}?"


def _running(change: _Change, tally: Tally) -> str:
    told = change.verb == "cancel" and JobState.EXECUTING.value in tally.counts
    return "; those that run are told to stop" if told else ""


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"


def _row(job: Listed) -> tuple[object, ...]:
    due = ""
    if job.state in STAGEABLE:
        due = f"in {duration(job.due_in)}" if job.due_in > 0 else "now"
    attempt = f"{job.attempt}/{job.max_attempts}"
    age = duration(job.age)
    return job.id, job.state, job.queue, job.worker, attempt, age, due, job.error


def _tell_errors(errors: Any) -> None:
    """Print errors as they were raised; those of another form, which others wrote, as JSON."""
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
