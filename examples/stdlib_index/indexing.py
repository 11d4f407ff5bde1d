"""Enqueue the jobs of a run, and follow them until the last one is finished."""

import asyncio
import sys
import sysconfig
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from alembic import command
from alembic.config import Config
from rich.progress import Progress
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from examples.stdlib_index.models import Run, SourceFile
from examples.stdlib_index.workers import IndexFile
from oban_sqla import JobState, Oban
from oban_sqla.events import JobException, JobStop

SCHEDULED = 20
"""The number of files whose jobs are scheduled for later."""


async def install(engine: AsyncEngine) -> None:
    """Upgrade the database with Alembic."""

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async with engine.begin() as connection:
        await connection.run_sync(upgrade)


def library_files(limit: int | None = None) -> tuple[Path, list[str]]:
    """The root of the standard library, and its Python files, relative to it."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = (path.relative_to(root) for path in sorted(root.rglob("*.py")))
    others = {"site-packages", "dist-packages"}
    return root, [str(path) for path in paths if path.parts[0] not in others][:limit]


async def enqueue(session: AsyncSession, root: Path, paths: Sequence[str]) -> Run:
    """Add a run, its files, and a job for each file, in one transaction."""
    run = Run(python=sys.version.split()[0], root=str(root), size=len(paths))
    run.files = [SourceFile(path=path) for path in paths]
    session.add(run)
    await session.flush()  # now the files have ids
    later = run.files[:: max(1, len(paths) // SCHEDULED)][:SCHEDULED]
    for file in run.files:
        if file not in later:
            await IndexFile.enqueue({"file_id": file.id}, conn=session)
    for n, file in enumerate(later):
        # In a queue of their own, so that no other job is ahead of them when they are due.
        seconds = timedelta(seconds=1 + 0.15 * n)
        session.add(IndexFile.new({"file_id": file.id}, queue="later", schedule_in=seconds))
    return run


def follow(oban: Oban, run: Run, progress: Progress) -> asyncio.Event:
    """Advance a bar with the jobs of a run. The event is set when all jobs are finished."""
    bar = progress.add_task("indexing", total=run.size, retried=0)
    left = {file.id for file in run.files}
    retried = 0
    finished = asyncio.Event()

    @event.listens_for(oban, "job_stop")
    @event.listens_for(oban, "job_exception")
    def count(oban: Oban, ended: JobStop | JobException) -> None:
        nonlocal retried
        if ended.state is JobState.RETRYABLE:
            retried += ended.job.args["file_id"] in left
        else:
            left.discard(ended.job.args["file_id"])
        progress.update(bar, completed=run.size - len(left), retried=retried)
        if not left:
            finished.set()

    return finished
