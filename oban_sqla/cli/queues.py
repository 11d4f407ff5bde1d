"""`oban-sqla queues`: list the queues, and give them orders."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

import typer

from ..config.values import LARGEST_COUNT
from ..monitor.status import status
from ..oban import Oban
from ..runtime.database import Database
from ..statements.orders import EVERY
from .configuration import ask, configured, name_database
from .failures import warn
from .options import Config, Dsn, Json, Name, Node, Prefix
from .output import document, plain
from .status import show_queues

Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")]
AnyQueue = Annotated[
    str | None,
    typer.Argument(metavar="QUEUE", show_default=False, help="The queue; or give --all."),
]
All = Annotated[bool, typer.Option("--all", help="All queues.")]
Limit = Annotated[
    int,
    typer.Argument(
        metavar="LIMIT", min=1, max=LARGEST_COUNT, help="How many jobs a node runs at once."
    ),
]

app = typer.Typer(help="List, pause, resume, scale, start or stop queues.", no_args_is_help=True)


@app.command("list")
def list_queues(
    dsn: Dsn = None,
    prefix: Prefix = None,
    name: Name = None,
    path: Config = None,
    as_document: Json = False,
) -> None:
    """List the queues that run or have jobs, with their nodes; ~ marks an estimate."""
    settings = configured(path, dsn=dsn, prefix=prefix)
    found = ask(settings, partial(status, instance=name))
    if as_document:
        document(found.queues)
    else:
        show_queues(found.queues)


@app.command("pause")
def pause_queue(
    queue: AnyQueue = None,
    every: All = False,
    node: Node = None,
    dsn: Dsn = None,
    prefix: Prefix = None,
    name: Name = None,
    path: Config = None,
) -> None:
    """Pause a queue, also after a restart. Running jobs go on."""
    which = _one_or_all(queue, every)
    order = _Order(dsn, prefix, name, path, node)
    order.give("paused", which, lambda oban: oban.pause_queue(which, node=node))


@app.command("resume")
def resume_queue(
    queue: AnyQueue = None,
    every: All = False,
    node: Node = None,
    dsn: Dsn = None,
    prefix: Prefix = None,
    name: Name = None,
    path: Config = None,
) -> None:
    """Resume a paused queue."""
    which = _one_or_all(queue, every)
    order = _Order(dsn, prefix, name, path, node)
    order.give("resumed", which, lambda oban: oban.resume_queue(which, node=node))


@app.command("scale")
def scale_queue(
    queue: Queue,
    limit: Annotated[
        int | None,
        typer.Argument(
            metavar="LIMIT",
            min=1,
            max=LARGEST_COUNT,
            show_default=False,
            help="How many jobs a node runs at once, until it restarts.",
        ),
    ] = None,
    global_limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=LARGEST_COUNT,
            show_default=False,
            help="How many jobs all nodes together run at once, also after a restart.",
        ),
    ] = None,
    no_global_limit: Annotated[
        bool, typer.Option("--no-global-limit", help="Run any number on all nodes together.")
    ] = False,
    rate_limit: Annotated[
        str | None,
        typer.Option(
            metavar="JOBS/SECONDS",
            show_default=False,
            help="How many jobs start on all nodes together in so many seconds, like 60/60, also"
            " after a restart.",
        ),
    ] = None,
    no_rate_limit: Annotated[
        bool, typer.Option("--no-rate-limit", help="Start any number on all nodes together.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="ARGUMENT",
            show_default=False,
            help="The limits are for each value of this argument, like account_id.",
        ),
    ] = None,
    node: Node = None,
    dsn: Dsn = None,
    prefix: Prefix = None,
    name: Name = None,
    path: Config = None,
) -> None:
    """Set how many jobs of a queue run at once: on each node, or on all nodes together."""
    changes: dict[str, Any] = {} if limit is None else {"limit": limit}
    done = [] if limit is None else [f"scaled to {limit}"]
    for kind, given, removed in (
        ("global limit", global_limit, no_global_limit),
        ("rate limit", rate_limit, no_rate_limit),
    ):
        option = kind.replace(" ", "-")
        if removed and given is not None:
            raise typer.BadParameter(f"give --{option} or --no-{option}, not both")
        if removed or given is not None:
            if node is not None:
                raise typer.BadParameter(f"a {kind} is for all nodes: leave --node out")
            changes[kind.replace(" ", "_")] = None if removed else _limit(given, by)
            done.append(f"{kind} {'removed' if removed else given}")
    if by is not None:
        if not any(changes.get(kind) for kind in ("global_limit", "rate_limit")):
            raise typer.BadParameter("--by divides a --global-limit or a --rate-limit: give one")
        done.append(f"for each {by}")
    if not changes:
        raise typer.BadParameter("name a LIMIT, or give --global-limit or --rate-limit")
    order = _Order(dsn, prefix, name, path, node)
    order.give(
        ", ".join(done),
        queue,
        lambda oban: oban.scale_queue(queue=queue, **changes, node=node),
    )


@app.command("start")
def start_queue(
    queue: Queue,
    limit: Limit,
    paused: Annotated[bool, typer.Option(help="Start the queue paused.")] = False,
    node: Node = None,
    dsn: Dsn = None,
    prefix: Prefix = None,
    name: Name = None,
    path: Config = None,
) -> None:
    """Start a queue on nodes that don't run it, until they restart."""
    order = _Order(dsn, prefix, name, path, node)
    order.give(
        "started",
        queue,
        lambda oban: oban.start_queue(queue=queue, limit=limit, paused=paused, node=node),
        running=False,
    )


@app.command("stop")
def stop_queue(
    queue: Queue,
    node: Node = None,
    dsn: Dsn = None,
    prefix: Prefix = None,
    name: Name = None,
    path: Config = None,
) -> None:
    """Stop a queue until its nodes restart. Running jobs get the grace period to end."""
    order = _Order(dsn, prefix, name, path, node)
    order.give("stopped", queue, lambda oban: oban.stop_queue(queue, node=node))


def _limit(given: int | str | None, by: str | None) -> dict[str, Any] | int | None:
    """A limit as Oban writes it: of a number, or of jobs and seconds, `60/60`."""
    partition = {} if by is None else {"partition": {"fields": ["args"], "keys": [by]}}
    if not isinstance(given, str):
        return {"allowed": given, **partition} if partition else given
    allowed, _, period = given.partition("/")
    try:
        return {"allowed": int(allowed), "period": float(period), **partition}
    except ValueError:
        raise typer.BadParameter(f"a rate limit is JOBS/SECONDS, like 60/60, not {given}") from None


class _Order:
    """An order to all nodes of an instance, or to one node, sent through the database."""

    def __init__(
        self,
        dsn: str | None,
        prefix: str | None,
        name: str | None,
        path: str | None,
        node: str | None,
    ) -> None:
        self._settings = configured(path, dsn=dsn, prefix=prefix, name=name)
        self._node = node

    def give(
        self,
        done: str,
        queue: str,
        order: Callable[[Oban], Awaitable[None]],
        *,
        running: bool = True,
    ) -> None:
        """Send the order and print it. Warn if no node can carry it out."""
        name = self._settings.config.name
        name_database(self._settings)

        async def give(database: Database) -> bool:
            schema = await database.verify()
            await order(Oban(database.engine, name=name, prefix=schema))
            nodes = (await status(database, instance=name)).nodes
            return any(
                own.alive and (not running or queue in (EVERY, own.queue))
                for node in nodes
                if self._node in (None, node.node)
                for own in node.queues
            )

        heard = ask(self._settings, give)
        what = "all queues" if queue == EVERY else plain(queue)
        where = "all nodes" if self._node is None else plain(self._node)
        typer.echo(f"{what} of {plain(name)}: {done} on {where}")
        if not heard:
            runs = f" runs {plain(queue)}" if running and queue != EVERY else " runs"
            who = "no node" if self._node is None else f"no node {plain(self._node)}"
            warn(f"{who} of {plain(name)}{runs} now")


def _one_or_all(queue: str | None, every: bool) -> str:
    if (queue is None) is not every:
        raise typer.BadParameter("name one queue, or give --all")
    return EVERY if queue is None else queue
