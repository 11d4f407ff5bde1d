"""The results of a run: its files, their jobs, and their definitions."""

from typing import NamedTuple

from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from examples.stdlib_index.models import Definition, Run, SourceFile
from examples.stdlib_index.workers import IndexFile
from oban_sqla import Job


class Result(NamedTuple):
    """A file and its job; `None` without a job. A file with several jobs has several results."""

    file: SourceFile
    job: Job | None
    classes: int
    functions: int


async def load(session: AsyncSession, run: Run) -> list[Result]:
    """The results of a run, in the order of its files."""
    found = (
        select(
            Definition.file_id,
            func.count().filter(Definition.kind == "class").label("classes"),
            func.count().filter(Definition.kind == "function").label("functions"),
        )
        .group_by(Definition.file_id)
        .subquery()
    )
    its_job = and_(
        Job.worker == IndexFile.new().worker,
        Job.args["file_id"].as_integer() == SourceFile.id,
    )
    query = (
        select(
            SourceFile,
            Job,
            func.coalesce(found.c.classes, 0),
            func.coalesce(found.c.functions, 0),
        )
        .outerjoin(Job, its_job)
        .outerjoin(found, found.c.file_id == SourceFile.id)
        .where(SourceFile.run_id == run.id)
        .order_by(SourceFile.id)
    )
    return [Result(*row) for row in await session.execute(query)]
