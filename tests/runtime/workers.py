"""Workers for the tests of the services."""

import asyncio
import threading
from typing import ClassVar

from oban_sqla import Job, Worker
from tests.listening import PATIENCE


class Quick(Worker, queue="default"):
    """A worker that completes at once, and notes that it ran."""

    ran: ClassVar[list[int]] = []

    async def process(self, job: Job) -> None:
        self.ran.append(job.id)


class Held(Worker, queue="default"):
    """A worker that runs until the test releases it; with the argument `stubborn` also after a
    cancellation.
    """

    _begun: ClassVar[asyncio.Queue[int]]
    released: ClassVar[asyncio.Event]

    @classmethod
    def reset(cls) -> None:
        cls._begun, cls.released = asyncio.Queue(), asyncio.Event()

    @classmethod
    async def begun(cls) -> int:
        """The id of the next job that has begun."""
        async with asyncio.timeout(PATIENCE):
            return await cls._begun.get()

    @classmethod
    def release(cls) -> None:
        cls.released.set()

    async def process(self, job: Job) -> None:
        self._begun.put_nowait(job.id)
        while True:
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                if not job.args.get("stubborn"):
                    raise
            else:
                return


class Blocking(Worker, queue="default"):
    """A worker that runs in a thread until the test releases it."""

    released: ClassVar[threading.Event]

    def process(self, job: Job) -> None:
        self.released.wait(PATIENCE)


class Unstorable(Worker, queue="default"):
    """A worker that fails, when released, with an error that PostgreSQL can't store."""

    async def process(self, job: Job) -> None:
        await Held.released.wait()
        raise ValueError("\x00")
