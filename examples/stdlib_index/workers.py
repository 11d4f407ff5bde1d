"""The worker: each job stores the definitions of one file."""

import asyncio

from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import joinedload

from examples.stdlib_index.models import Definition, SourceFile
from examples.stdlib_index.parsing import outline, parsers
from oban_sqla import Job, Worker

Session = async_sessionmaker[AsyncSession](expire_on_commit=False)
"""The process that runs the workers calls `Session.configure(bind=engine)`."""


class IndexFile(Worker, queue="index", max_attempts=2):
    """Indexes a file. After two failed attempts, the job is discarded with the error."""

    async def process(self, job: Job) -> None:
        async with Session() as session:
            file = await session.get_one(
                SourceFile, job.args["file_id"], options=[joinedload(SourceFile.run)]
            )
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(parsers, outline, file.run.root, file.path)
        async with Session.begin() as session:
            session.add(file)
            file.module, file.lines = found.module, found.lines
            # After a crash the job may run again, so replace its earlier definitions.
            await session.execute(delete(Definition).where(Definition.file_id == file.id))
            if found.definitions:
                await session.execute(
                    insert(Definition),
                    [{"file_id": file.id, **each._asdict()} for each in found.definitions],
                )

    def backoff(self, job: Job) -> float:
        return 0.5
