"""`python -m examples.stdlib_index`: index the standard library, and check the result."""

import argparse
import asyncio
import logging
import sys
import time
from contextlib import AsyncExitStack

from rich.console import Console
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from examples.stdlib_index import indexing, report
from examples.stdlib_index.workers import parsers, sessions
from oban_sqla import Oban
from oban_sqla.embedded import embedded_postgres


async def main(dsn: str | None, files: int | None) -> int:
    """Run everything; the exit code."""
    console = Console()
    async with AsyncExitStack() as stack:
        if dsn is None:
            dsn = await stack.enter_async_context(embedded_postgres())
        engine = create_async_engine(make_url(dsn).set(drivername="postgresql+psycopg"))
        stack.push_async_callback(engine.dispose)
        stack.callback(parsers.shutdown)
        sessions.configure(bind=engine)
        await indexing.install(engine)
        root, paths = indexing.library_files(files)
        console.print(f"{len(paths):,} Python files in {root}")
        async with Oban(engine, queues={"index": 10, "later": 10}) as oban:
            started = time.monotonic()
            with indexing.progress(oban, len(paths)) as done:
                run_id = await indexing.enqueue(root, paths)
                await done.wait()
            seconds = time.monotonic() - started
        async with sessions() as session:
            await report.show(console, session, run_id, seconds)
            with console.status("checking against a direct parse"):
                wrong = await report.check(session, run_id)
    for complaint in wrong[:20]:
        console.print(f"[red]wrong:[/] {complaint}")
    if not wrong:
        console.print("[green]checked:[/] one finished job for each file, with what it defines")
    return 1 if wrong else 0


if __name__ == "__main__":
    arguments = argparse.ArgumentParser("python -m examples.stdlib_index", description=__doc__)
    arguments.add_argument("--dsn", help="an empty database to use, instead of one brought along")
    arguments.add_argument("--files", type=int, help="index only so many files")
    given = arguments.parse_args()
    # The files that do not parse are part of the show, and listed at its end.
    logging.getLogger("oban_sqla").setLevel(logging.CRITICAL)
    sys.exit(asyncio.run(main(given.dsn, given.files)))
