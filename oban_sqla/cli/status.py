"""`oban-sqla status`: show the nodes, leaders, queues and jobs in the database."""

from collections.abc import Iterable
from functools import partial

import typer

from ..durations import ago, duration
from ..monitor.status import Count, QueueStatus, status
from ..runtime.presence import Node
from .configuration import ask, configured
from .options import Config, Dsn, Json, Name, Prefix
from .output import Columns, document, plain, table


def show_status(
    dsn: Dsn = None,
    prefix: Prefix = None,
    name: Name = None,
    path: Config = None,
    as_document: Json = False,
) -> None:
    """Show the nodes, their leader and queues, and the number of jobs; ~ marks an estimate.

    The queues and pauses of a node are those of its last heartbeat, at the time in the column
    "seen".
    """
    settings = configured(path, dsn=dsn, prefix=prefix)
    found = ask(settings, partial(status, instance=name))
    if as_document:
        document(found)
        return
    typer.echo(f"schema {plain(found.schema)}\n")
    if found.nodes:
        leading = {(lease.instance, lease.node) for lease in found.leaders if lease.expires_in > 0}
        columns: Columns = {
            "node": "left",
            "instance": "left",
            "": "left",
            "seen": "left",
            "queues": "left",
        }
        table(columns, (_of_node(node, leading) for node in found.nodes))
    else:
        typer.echo("no node runs")
    typer.echo()
    show_queues(found.queues)


def show_queues(queues: Iterable[QueueStatus]) -> None:
    """Print a table of queues, with the jobs in each by their states."""
    rows = [
        (
            queue.queue,
            queue.nodes,
            f"{queue.running}/{queue.limit}",
            _paused(queue),
            duration(queue.oldest_available) if queue.oldest_available is not None else "",
            ", ".join(f"{counted(count)} {state}" for state, count in queue.counts.items()),
        )
        for queue in queues
    ]
    if not rows:
        typer.echo("no queue runs, and there are no jobs")
        return
    columns: Columns = {"queue": "left", "nodes": "right", "running": "right", "paused": "left"}
    table({**columns, "oldest waits": "left", "jobs": "left"}, rows)


def _of_node(node: Node, leading: set[tuple[str, str]]) -> tuple[str, ...]:
    queues = (
        f"{queue.queue} {queue.running}/{'?' if queue.limit is None else queue.limit}"
        f"{' paused' if queue.paused else ''}"
        for queue in node.queues
    )
    seen = ago(node.silent_for) if node.alive else f"dead: {ago(node.silent_for)}"
    leads = "leader" if (node.instance, node.node) in leading else ""
    return node.node, node.instance, leads, seen, ", ".join(queues)


def _paused(queue: QueueStatus) -> str:
    if not queue.paused:
        return ""
    return "yes" if queue.paused == queue.nodes else f"on {queue.paused} of {queue.nodes}"


def counted(count: Count) -> str:
    return f"{'~' if count.estimated else ''}{count.count:,}"
