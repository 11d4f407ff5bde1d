"""`oban-sqla jobs retry`, `cancel` and `delete`: change jobs in batches, after a confirmation."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import Select

from ..durations import duration
from ..manage.cancel import CANCELLABLE
from ..manage.delete import DELETABLE
from ..manage.retry import RETRYABLE
from ..models import JobState
from ..monitor.browse import Selection, Tally
from ..monitor.job_queries import Filters
from ..oban import Oban
from ..runtime.database import Database
from ..settings import Settings
from .configuration import ask, configured, name_database
from .failures import fail, warn
from .options import Config, Dsn, Json, Prefix, Yes
from .output import as_json, document, plain
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


@dataclass(frozen=True, slots=True)
class Change:
    """A command that changes jobs."""

    verb: str
    done: str
    """The verb's past participle."""
    states: tuple[JobState, ...]
    """The states in which the change is possible."""
    default: tuple[JobState, ...]
    """The states of the jobs that filters select, if the user names no state."""
    make: Callable[[Oban, Select[Any]], Awaitable[int]]
    help: str

    def select(self, filters: Filters, limit: int | None) -> Selection:
        """Select the jobs to change. `default` applies only if the user names no states or ids."""
        chosen = bool(filters.states or filters.ids)
        return Selection(filters, self.states if chosen else self.default, limit=limit)


CHANGES = (
    Change(
        "retry",
        "retried",
        RETRYABLE,
        (JobState.RETRYABLE, JobState.DISCARDED, JobState.CANCELLED),
        Oban.retry_jobs,
        "Run jobs again now.\n\nFilters select retryable, discarded and cancelled jobs; --state"
        " selects other states. A job named by its id may be in any state. Available and executing"
        " jobs are skipped.",
    ),
    Change(
        "cancel",
        "cancelled",
        CANCELLABLE,
        CANCELLABLE,
        Oban.cancel_jobs,
        "Cancel jobs that are not finished. Executing jobs are told to stop.",
    ),
    Change(
        "delete",
        "deleted",
        DELETABLE,
        DELETABLE,
        Oban.delete_jobs,
        "Delete jobs. Executing jobs are skipped.",
    ),
)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the group `jobs`."""
    for change in CHANGES:
        _add(app, change)


def _add(app: typer.Typer, change: Change) -> None:
    @app.command(change.verb, help=change.help)
    def command(
        ids: Ids = None,
        state: States = None,
        queue: Queue = None,
        worker: Worker = None,
        args: Args = None,
        tag: Tags = None,
        older_than: OlderThan = None,
        newer_than: NewerThan = None,
        every: Annotated[bool, typer.Option("--all", help="All jobs, without filters.")] = False,
        limit: Annotated[
            int | None, typer.Option(min=1, help="Change at most this many jobs, the oldest first.")
        ] = None,
        yes: Yes = False,
        dsn: Dsn = None,
        prefix: Prefix = None,
        path: Config = None,
        as_document: Json = False,
    ) -> None:
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
        if wanted == Filters() and not every:
            raise typer.BadParameter("name jobs by ids or filters, or give --all")
        if wanted != Filters() and every:
            raise typer.BadParameter("--all selects all jobs: leave out ids and filters")
        if as_document and not yes:
            raise typer.BadParameter("--json can't ask for confirmation: give --yes, too")
        settings = configured(path, dsn=dsn, prefix=prefix)

        async def read(database: Database) -> tuple[Filters, Selection, Tally]:
            filters = await with_full_name(database, wanted)
            selection = change.select(filters, limit)
            return filters, selection, await selection.tally(database)

        filters, selection, tally = ask(settings, read)
        name_database(settings)
        if tally.total and not yes and not typer.confirm(_question(change, tally, filters)):
            fail("nothing was changed")
        changed = _make(change, settings, selection, tally) if tally.total else 0
        if as_document:
            document({"found": tally.total, change.done: changed})
        elif not tally.total:
            typer.echo(f"no job to {change.verb} matches")
        else:
            typer.echo(f"{change.done} {_jobs(changed)}{_running(change, tally)}")


def _make(change: Change, settings: Settings, selection: Selection, tally: Tally) -> int:
    """Make a change, batch by batch, and return the number of changed jobs."""
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


def _question(change: Change, tally: Tally, filters: Filters) -> str:
    states = ", ".join(f"{count:,} {state}" for state, count in tally.counts.items())
    which = [
        f" of queue {plain(filters.queue)}" if filters.queue is not None else "",
        f" of worker {plain(filters.worker)}" if filters.worker is not None else "",
        f" with arguments {plain(as_json(filters.args))}" if filters.args is not None else "",
        f" with tags {plain(', '.join(filters.tags))}" if filters.tags else "",
        f", older than {duration(filters.older_than)}" if filters.older_than is not None else "",
        f", newer than {duration(filters.newer_than)}" if filters.newer_than is not None else "",
    ]
    return f"{change.verb.capitalize()} {_jobs(tally.total)} ({states}){''.join(which)}?"


def _running(change: Change, tally: Tally) -> str:
    told = change.verb == "cancel" and JobState.EXECUTING.value in tally.counts
    return "; executing jobs are told to stop" if told else ""


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"
