"""Look at what the jobs left behind: sum it up, and check it against a direct parse."""

import asyncio
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from sqlalchemy import Float, case, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from examples.stdlib_index.models import Definition, Run, SourceFile
from examples.stdlib_index.parsing import outline
from examples.stdlib_index.workers import IndexFile, parsers
from oban_sqla import Job, JobState

ours = Job.worker == IndexFile.new().worker
file_id = Job.args["file_id"].as_integer()


async def show(console: Console, session: AsyncSession, run_id: int, seconds: float) -> None:
    """Print the summary of a run."""
    files = select(SourceFile.id).where(SourceFile.run_id == run_id)
    indexed = select(func.count()).where(
        SourceFile.run_id == run_id, SourceFile.module.is_not(None)
    )
    counts = await session.execute(
        select(Definition.kind, func.count())
        .where(Definition.file_id.in_(files))
        .group_by(Definition.kind)
    )
    kinds = {kind: count for kind, count in counts}
    jobs = await session.scalar(select(func.count()).where(ours, file_id.in_(files)))
    late = cast(func.extract("epoch", Job.attempted_at - Job.scheduled_at) * 1000, Float)
    (waited, median, worst) = (
        await session.execute(
            select(
                func.count(), func.percentile_cont(0.5).within_group(late), func.max(late)
            ).where(ours, file_id.in_(files), Job.queue == "later", Job.attempt == 1)
        )
    ).one()
    table = Table(title=f"The standard library, indexed in {seconds:.1f} s", show_header=False)
    table.add_column(style="bold", no_wrap=True, min_width=15)
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_row("files", f"{await session.scalar(indexed):,} of {jobs:,}")
    table.add_row("classes", f"{kinds.get('class', 0):,}")
    table.add_row("functions", f"{kinds.get('function', 0):,}")
    table.add_row("jobs per second", f"{(jobs or 0) / seconds:,.0f}")
    table.add_row(
        "scheduled jobs", f"{waited}, started {median or 0:.0f} ms late, {worst or 0:.0f} at worst"
    )
    for n, (module, count) in enumerate(await _largest(session, run_id)):
        table.add_row("largest modules" if n == 0 else "", f"{module} ({count:,} definitions)")
    for n, (path, error) in enumerate(await _failures(session, run_id)):
        table.add_row("discarded" if n == 0 else "", f"[red]{path}[/]: {error}")
    console.print(table)


async def check(session: AsyncSession, run_id: int) -> list[str]:
    """What is wrong with a run: each file has one finished job, and what a direct parse finds."""
    run = await session.get_one(Run, run_id)
    counted = (
        select(Definition.file_id, func.count().label("definitions"))
        .group_by(Definition.file_id)
        .subquery()
    )
    jobs = (
        select(
            file_id.label("file_id"),
            func.count().label("jobs"),
            func.min(case((ours, Job.state))).label("state"),
        )
        .where(ours)
        .group_by(file_id)
        .subquery()
    )
    rows = (
        await session.execute(
            select(
                SourceFile.path,
                func.coalesce(jobs.c.jobs, 0),
                jobs.c.state,
                func.coalesce(counted.c.definitions, 0),
            )
            .outerjoin(counted, counted.c.file_id == SourceFile.id)
            .outerjoin(jobs, jobs.c.file_id == SourceFile.id)
            .where(SourceFile.run_id == run_id)
            .order_by(SourceFile.id)
        )
    ).all()
    parsed = await _parse_again(run.root, [path for path, *_ in rows])
    wrong = []
    for (path, count, state, definitions), expected in zip(rows, parsed, strict=True):
        if count != 1:
            wrong.append(f"{path} has {count} jobs instead of one")
        elif expected is None and state is not JobState.DISCARDED:
            wrong.append(f"{path} does not parse, but its job is {state}")
        elif expected is not None and state is not JobState.COMPLETED:
            wrong.append(f"{path} parses, but its job is {state}")
        elif definitions != (expected or 0):
            wrong.append(f"{path} has {definitions} definitions, a direct parse finds {expected}")
    return wrong


async def _parse_again(root: str, paths: Sequence[str]) -> list[int | None]:
    loop = asyncio.get_running_loop()
    return await asyncio.gather(
        *(loop.run_in_executor(parsers, _count, root, path) for path in paths)
    )


def _count(root: str, path: str) -> int | None:
    try:
        return len(outline(root, path).definitions)
    except (SyntaxError, ValueError):
        return None


async def _largest(session: AsyncSession, run_id: int) -> list[tuple[str | None, int]]:
    count = func.count(Definition.id)
    query = (
        select(SourceFile.module, count)
        .join(SourceFile.definitions)
        .where(SourceFile.run_id == run_id, ~SourceFile.path.contains("test"))
        .group_by(SourceFile.id)
        .order_by(count.desc(), SourceFile.module)
        .limit(3)
    )
    return [(module, count) for module, count in await session.execute(query)]


async def _failures(session: AsyncSession, run_id: int) -> list[tuple[str, str]]:
    query = (
        select(SourceFile.path, Job.errors)
        .join(Job, file_id == SourceFile.id)
        .where(SourceFile.run_id == run_id, ours, Job.state == JobState.DISCARDED)
        .order_by(SourceFile.path)
    )
    rows = await session.execute(query)
    return [(path, errors[-1]["error"].strip().rpartition("\n")[2]) for path, errors in rows]
