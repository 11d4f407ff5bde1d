"""`oban-sqla top`: show the queues live."""

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..durations import duration
from ..models import JobState
from ..monitor.browse import Listed, browse
from ..monitor.job_queries import Filters
from ..monitor.status import QueueStatus, Status, status
from ..runtime.database import Database
from .configuration import ask, configured
from .options import Config, Dsn, Name, Prefix
from .output import Columns, console, grid
from .status import counted

QUEUES: Columns = {
    "queue": "left",
    "nodes": "right",
    "running": "right",
    "available": "right",
    "scheduled": "right",
    "retryable": "right",
    "ended/s": "right",
    "oldest": "left",
}
JOBS: Columns = {"id": "right", "queue": "left", "worker": "left", "attempt": "right"}
RUNNING = Filters(states=(JobState.EXECUTING,))
ENDED = (JobState.COMPLETED, JobState.CANCELLED, JobState.DISCARDED, JobState.RETRYABLE)


def top(
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two updates.")] = 2.0,
    jobs: Annotated[int, typer.Option(min=0, help="How many running jobs to show.")] = 10,
    once: Annotated[bool, typer.Option("--once", help="Print once and exit.")] = False,
    dsn: Dsn = None,
    prefix: Prefix = None,
    name: Name = None,
    path: Config = None,
) -> None:
    """Show the queues live: running jobs, waiting jobs, and how many end per second.

    Ctrl-C ends it.
    """
    settings = configured(path, dsn=dsn, prefix=prefix)

    async def watch(database: Database) -> None:
        before, since = await status(database, instance=name), time.monotonic()
        with Live(console=console(), auto_refresh=False, screen=False) as live:
            while True:
                await asyncio.sleep(every)
                now, seconds = await status(database, instance=name), time.monotonic() - since
                since += seconds
                running = await browse(database, RUNNING, limit=jobs) if jobs else []
                live.update(_screen(now, before, seconds, running), refresh=True)
                before = now
                if once:
                    return

    try:
        ask(settings, watch)
    except KeyboardInterrupt:
        raise typer.Exit from None


def _screen(now: Status, before: Status, seconds: float, running: list[Listed]) -> Group:
    ended = {queue.queue: _ended(queue) for queue in before.queues}
    rows = [_row(queue, ended.get(queue.queue, 0), seconds) for queue in now.queues]
    alive = sum(node.alive for node in now.nodes)
    title = Text(f"schema {now.schema}, {alive} nodes, {time.strftime('%H:%M:%S')}\n")
    parts: list[Text | Table] = [title, grid(QUEUES, rows)]
    if running:
        parts += [Text(), grid(JOBS, map(_job, running))]
    return Group(*parts)


def _row(queue: QueueStatus, ended: int, seconds: float) -> tuple[object, ...]:
    def count(state: JobState) -> str:
        found = queue.counts.get(state.value)
        return "" if found is None else counted(found)

    # Pruning may delete more jobs than have ended, so the difference may be negative.
    rate = max(0, _ended(queue) - ended) / seconds
    oldest = "" if queue.oldest_available is None else duration(queue.oldest_available)
    waiting = (count(JobState.AVAILABLE), count(JobState.SCHEDULED), count(JobState.RETRYABLE))
    running = f"{queue.running}/{queue.limit}"
    return queue.queue, queue.nodes, running, *waiting, f"{rate:,.1f}", oldest


def _ended(queue: QueueStatus) -> int:
    counts: Mapping[str, object] = queue.counts
    return sum(queue.counts[state.value].count for state in ENDED if state.value in counts)


def _job(job: Listed) -> tuple[object, ...]:
    return job.id, job.queue, job.worker, f"{job.attempt}/{job.max_attempts}"
