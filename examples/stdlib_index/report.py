"""Print the summary of a run."""

from collections.abc import Iterable, Sequence
from heapq import nlargest
from statistics import median

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from examples.stdlib_index.models import Run
from examples.stdlib_index.results import Result
from oban_sqla import Job, JobState

LISTED = 10
"""The most failures that are shown."""


def progress_bar(console: Console) -> Progress:
    """A bar for the jobs of a run."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("[dim]{task.fields[retried]} tried again"),
        TimeElapsedColumn(),
        console=console,
        expand=True,
    )


def show(console: Console, run: Run, results: Sequence[Result]) -> None:
    """Print the summary of a run."""
    jobs = [result.job for result in results if result.job is not None]
    ends = [end for job in jobs if (end := job.completed_at or job.discarded_at) is not None]
    seconds = (max(ends, default=run.started_at) - run.started_at).total_seconds()
    indexed = sum(result.file.module is not None for result in results)
    title = f"The standard library of Python {run.python}, indexed in {seconds:.1f} s"
    table = Table(title=title, box=box.SIMPLE, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    table.add_row("files", f"{indexed:,} of {run.size:,}")
    table.add_row("classes", f"{sum(result.classes for result in results):,}")
    table.add_row("functions", f"{sum(result.functions for result in results):,}")
    table.add_row("largest modules", _lines(_largest(results)))
    table.add_row("jobs", f"{len(ends):,} finished, {len(ends) / (seconds or 1):,.0f} a second")
    table.add_row("scheduled jobs", _lateness(job for job in jobs if job.queue == "later"))
    table.add_row("failures", _lines(_failures(results)))
    console.print(table)


def _largest(results: Iterable[Result]) -> list[str]:
    sizes = (
        (result.classes + result.functions, result.file.module)
        for result in results
        if result.file.module and "test" not in result.file.path
    )
    return [f"{module}, {size:,} definitions" for size, module in nlargest(3, sizes)]


def _lateness(jobs: Iterable[Job]) -> str:
    late = [
        (job.attempted_at - job.scheduled_at).total_seconds() * 1000
        for job in jobs
        if job.attempted_at is not None
    ]
    if not late:
        return "none"
    return f"{len(late)} started {median(late):.0f} ms late, {max(late):.0f} ms at worst"


def _failures(results: Iterable[Result]) -> list[str]:
    failures = [
        f"{result.file.path}: {_last_error(result.job)}"
        for result in results
        if result.job is not None and result.job.state is JobState.DISCARDED
    ]
    if not failures:
        return ["none"]
    more = [f"and {len(failures) - LISTED} more"] if len(failures) > LISTED else []
    return [f"{len(failures)} jobs, tried again and then discarded", *failures[:LISTED], *more]


def _last_error(job: Job) -> str:
    error: str = job.errors[-1]["error"]
    return error.strip().rpartition("\n")[2]


def _lines(lines: Iterable[str]) -> Text:
    # Plain text, since an error may contain markup. Cut at the width of the terminal.
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
