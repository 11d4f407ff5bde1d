"""The worker: one job reads one file and writes down what it defines."""

import asyncio
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from examples.stdlib_index.models import Definition, Run, SourceFile
from examples.stdlib_index.parsing import outline
from oban_sqla import Cancel, Job, Worker

sessions = async_sessionmaker[AsyncSession](expire_on_commit=False)
"""Bound to an engine by whoever runs the workers: `sessions.configure(bind=engine)`."""


parsers = ProcessPoolExecutor(mp_context=get_context("spawn"))
"""Parsing keeps a processor busy: in processes it leaves the event loop alone."""


class IndexFile(Worker, queue="index", max_attempts=2):
    """A file that does not parse is tried twice, and its job is then discarded with the error."""

    async def process(self, job: Job) -> Cancel | None:
        async with sessions() as session:
            file = await session.get(SourceFile, job.args["file_id"])
            run = await session.get(Run, file.run_id) if file else None
        if file is None or run is None:
            return Cancel("the file is not in the index any more")
        found = await asyncio.get_running_loop().run_in_executor(
            parsers, outline, run.root, file.path
        )
        # A job may run again after a crash: what an earlier attempt wrote is replaced.
        async with sessions.begin() as session:
            await session.execute(delete(Definition).where(Definition.file_id == file.id))
            session.add(file)
            file.module = found.module
            file.lines = found.lines
            if found.definitions:
                await session.execute(
                    insert(Definition),
                    [
                        {"file_id": file.id, "kind": kind, "name": name, "line": line}
                        for kind, name, line in found.definitions
                    ],
                )
        return None

    def backoff(self, job: Job) -> float:
        return 0.5
