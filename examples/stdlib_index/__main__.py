"""`python -m examples.stdlib_index`: index the standard library, and check the result."""

import argparse
import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console
from rich.markup import escape
from sqlalchemy import make_url, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from examples.stdlib_index import indexing, report, results
from examples.stdlib_index.checking import check
from examples.stdlib_index.models import Run
from examples.stdlib_index.parsing import parsers
from examples.stdlib_index.workers import Session
from oban_sqla import Oban
from oban_sqla.embedded import embedded_postgres

console = Console()


async def main(dsn: str | None, limit: int | None, only_check: bool) -> int:
    """Run everything, and return the exit code."""
    if dsn is None:
        async with embedded_postgres() as dsn:
            return await main(dsn, limit, only_check)
    async with connected(dsn) as engine:
        await indexing.install(engine)
        if not only_check:
            await index(engine, limit)
        return await judge()


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[AsyncEngine]:
    """An engine, to which the sessions of the workers are bound."""
    url = make_url(dsn).set(drivername="postgresql+psycopg")
    engine = create_async_engine(
        url, pool_size=25
    )  # 20 jobs at once, and the connections of the node itself
    Session.configure(bind=engine)
    try:
        yield engine
    finally:
        parsers.shutdown()
        await engine.dispose()


async def index(engine: AsyncEngine, limit: int | None) -> None:
    """Enqueue the jobs of a run in one transaction with its rows, and run them."""
    root, paths = indexing.library_files(limit)
    console.print(f"{len(paths):,} Python files in {root}", highlight=False)
    async with Oban(engine, queues={"index": 10, "later": 10}) as oban:
        with report.progress_bar(console) as progress:
            async with Session.begin() as session:
                run = await indexing.enqueue(session, root, paths)
                # Before the commit, so that the end of no job is missed.
                finished = indexing.follow(oban, run, progress)
            await finished.wait()


async def judge() -> int:
    """Sum up the last run, check it, and return the exit code."""
    async with Session() as session:
        run = (await session.scalars(select(Run).order_by(Run.id.desc()).limit(1))).one()
        outcome = await results.load(session, run)
    report.show(console, run, outcome)
    with console.status("checking against a direct parse"):
        wrong = await check(run, outcome)
    for complaint in wrong[:20]:
        console.print("[bold red]wrong[/]  ", escape(complaint), highlight=False)
    if wrong:
        console.print(f"[bold red]{len(wrong):,} things are not as they should be[/]")
    else:
        console.print(
            "[bold green]checked[/]  each file: one finished job, the counts of a direct parse"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m examples.stdlib_index", description=__doc__)
    parser.add_argument("--dsn", help="use this database, instead of one brought along")
    parser.add_argument("--files", type=int, metavar="N", help="index only the first N files")
    parser.add_argument("--check", action="store_true", help="only look at the last run in --dsn")
    given = parser.parse_args()
    if given.check and given.dsn is None:
        parser.error("--check needs the --dsn of a run")
    if given.files is not None and given.files < 1:
        parser.error("--files needs a number above 0")
    # The summary lists the errors of jobs. All other errors are still logged.
    logging.getLogger("oban_sqla.jobs").setLevel(logging.CRITICAL)
    try:
        sys.exit(asyncio.run(main(given.dsn, given.files, given.check)))
    except KeyboardInterrupt:
        sys.exit("interrupted")
