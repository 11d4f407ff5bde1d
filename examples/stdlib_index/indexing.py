"""Enqueue the jobs of a run in one transaction with its rows, and wait until they are done."""

import asyncio
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from alembic import command
from alembic.config import Config
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

from examples.stdlib_index.models import Run, SourceFile
from examples.stdlib_index.workers import IndexFile, sessions
from oban_sqla import JobState, Oban
from oban_sqla.events import JobException, JobStop

SCHEDULED = 20
"""How many files wait for their time, in a queue where nothing is ahead of them."""


async def install(engine: AsyncEngine) -> None:
    """Bring the database up to date, with Alembic."""

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async with engine.begin() as connection:
        await connection.run_sync(upgrade)


def library_files(most: int | None = None) -> tuple[Path, list[str]]:
    """The root of the standard library, and its Python files, relative to it."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = (path.relative_to(root) for path in sorted(root.rglob("*.py")))
    own = [str(path) for path in paths if path.parts[0] not in ("site-packages", "dist-packages")]
    return root, own[:most]


async def enqueue(root: Path, paths: list[str]) -> int:
    """Record a run and enqueue a job for each file: all of it is there, or nothing."""
    every = max(1, len(paths) // SCHEDULED)
    async with sessions.begin() as session:
        run = Run(python=sys.version.split()[0], root=str(root))
        run.files = [SourceFile(path=path) for path in paths]
        session.add(run)
        await session.flush()
        for n, file in enumerate(run.files):
            if n % every:
                await IndexFile.enqueue({"file_id": file.id}, conn=session)
            else:
                later = timedelta(seconds=1 + n / every * 0.15)
                session.add(IndexFile.new({"file_id": file.id}, queue="later", schedule_in=later))
        return run.id


@contextmanager
def progress(oban: Oban, total: int) -> Iterator[asyncio.Event]:
    """A bar that the events of the instance drive; what it gives is set when all is finished."""
    done = asyncio.Event()
    columns = (
        TextColumn("[bold]indexing"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("[dim]{task.fields[retried]} tried again"),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as bar:
        bar.add_task("indexing", total=total, retried=0)
        (task,) = bar.tasks

        def count(_: Oban, ended: JobStop | JobException) -> None:
            if ended.state is JobState.RETRYABLE:
                bar.update(task.id, retried=task.fields["retried"] + 1)
            else:
                bar.advance(task.id)
            if task.finished:
                done.set()

        for name in ("job_stop", "job_exception"):
            event.listen(oban, name, count)
        yield done
