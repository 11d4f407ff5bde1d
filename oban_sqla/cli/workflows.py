"""`oban-sqla workflows`: list, show, cancel and retry workflows."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer

from ..oban import Oban
from ..runtime.database import Database
from ..workflows.workflow_queries import (
    StepState,
    WorkflowDetails,
    WorkflowSummary,
    workflow_details,
    workflows,
)
from .configuration import ask, configured, name_database
from .failures import fail
from .options import Config, Dsn, Json, Prefix
from .output import Columns, cut, document, plain, table

COLUMNS: Columns = {
    "id": "left",
    "name": "left",
    "state": "left",
    "steps": "right",
    "inserted at": "left",
    "ended at": "left",
}

Id = Annotated[str, typer.Argument(metavar="ID", help="The id of the workflow.")]


class WorkflowState(StrEnum):
    EXECUTING = "executing"
    COMPLETED = "completed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"


app = typer.Typer(help="List, show, cancel or retry workflows.", no_args_is_help=True)


@app.command("list")
def list_workflows(
    state: Annotated[WorkflowState | None, typer.Option(help="Workflows in this state.")] = None,
    name: Annotated[str | None, typer.Option("--named", help="Workflows of this name.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, help="The most workflows to list.")
    ] = 20,
    dsn: Dsn = None,
    prefix: Prefix = None,
    path: Config = None,
    as_document: Json = False,
) -> None:
    """List the newest workflows, and how many of their steps have ended."""
    settings = configured(path, dsn=dsn, prefix=prefix)
    found = ask(settings, lambda database: workflows(database, state=state, name=name, limit=limit))
    if as_document:
        document(found)
    elif found:
        table(COLUMNS, map(_row, found))
    else:
        typer.echo("no workflows")


@app.command("show")
def show_workflow(
    id: Id,
    dsn: Dsn = None,
    prefix: Prefix = None,
    path: Config = None,
    as_document: Json = False,
) -> None:
    """Show one workflow as a tree: its steps, their states, and the steps that they wait for."""
    settings = configured(path, dsn=dsn, prefix=prefix)
    found = ask(settings, lambda database: workflow_details(database, id))
    if found is None:
        fail(f"there is no workflow {id}")
    if as_document:
        document(asdict(found))
        return
    for line in _tree(found):
        typer.echo(plain(line))


@app.command("cancel")
def cancel_workflow(id: Id, dsn: Dsn = None, prefix: Prefix = None, path: Config = None) -> None:
    """Cancel the steps that have not ended. Steps of add_last still run."""
    count = _manage(id, dsn, prefix, path, lambda oban: oban.cancel(id))
    typer.echo(f"workflow {plain(id)}: {_steps(count)} cancelled")


@app.command("retry")
def retry_workflow(id: Id, dsn: Dsn = None, prefix: Prefix = None, path: Config = None) -> None:
    """Run discarded and cancelled steps again, and the steps that they had cancelled."""
    count = _manage(id, dsn, prefix, path, lambda oban: oban.retry(id))
    typer.echo(f"workflow {plain(id)}: {_steps(count)} retried")


def _manage(
    id: str,
    dsn: str | None,
    prefix: str | None,
    path: str | None,
    change: Callable[[Oban], Awaitable[int]],
) -> int:
    settings = configured(path, dsn=dsn, prefix=prefix)
    name_database(settings)

    async def work(database: Database) -> int | None:
        if await workflow_details(database, id) is None:
            return None
        return await change(Oban(database.engine, prefix=database.prefix))

    count = ask(settings, work)
    if count is None:
        fail(f"there is no workflow {id}")
    return count


def _steps(count: int) -> str:
    return f"{count:,} {'step' if count == 1 else 'steps'}"


def _row(found: WorkflowSummary) -> tuple[Any, ...]:
    ended = found.completed_at
    return (
        found.id,
        found.name,
        found.state,
        f"{found.done}/{found.total}",
        found.inserted_at.isoformat(" ", "seconds"),
        None if ended is None else ended.isoformat(" ", "seconds"),
    )


def _tree(found: WorkflowDetails, indent: str = "") -> Iterator[str]:
    summary = found.summary
    name = summary.name or summary.id
    yield f"{indent}{name}: {summary.state}, {summary.done} of {summary.total} steps have ended"
    longest = max((len(step.name) for step in found.steps), default=0)
    for step in found.steps:
        yield f"{indent}  {step.name:<{longest}}  {step.state:<9}  {_said(step)}".rstrip()
    for inner in found.within:
        yield from _tree(inner, f"{indent}  ")


def _said(step: StepState) -> str:
    if step.waits_for:
        return f"waits for {cut(', '.join(step.waits_for), 80)}"
    if step.state == "suspended":
        return "runs when all others have ended" if step.kind == "last" else ""
    failed = step.state in ("discarded", "cancelled", "retryable")
    return cut((step.error or "").strip().splitlines()[-1], 100) if failed and step.error else ""
