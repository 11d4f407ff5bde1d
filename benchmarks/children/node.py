"""A node of oban_sqla: run from the first line to the last, and print the number of jobs."""

import asyncio
import sys

from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.child import ready, told
from benchmarks.contestants.oban_sqla import Nothing
from oban_sqla import Oban
from oban_sqla.dsn import database_url

assert Nothing  # declares the worker of the jobs


async def main(dsn: str) -> None:
    engine = create_async_engine(database_url(dsn))
    async with engine.connect():
        pass
    oban = Oban(engine, queues={"default": 20})
    ran = 0

    @event.listens_for(oban, "job_start")
    def count(oban: Oban, start: object) -> None:
        nonlocal ran
        ran += 1

    ready()
    await told()
    async with oban:
        await told()
    await engine.dispose()
    print(ran)


asyncio.run(main(*sys.argv[1:]))
