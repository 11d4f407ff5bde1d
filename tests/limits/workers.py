"""Workers that run until the test lets them go."""

import asyncio
from typing import Any, ClassVar

from oban_sqla import Job, Worker
from tests.listening import PATIENCE


class Holding(Worker, queue="limits"):
    """A worker that runs until it is released. The class counts the running jobs, and the most at
    once.
    """

    running: ClassVar[dict[int, asyncio.Event]]
    begun: ClassVar[list[int]]
    most: ClassVar[int]
    _changed: ClassVar[asyncio.Event]
    _free: ClassVar[bool]

    @classmethod
    def reset(cls) -> None:
        Holding.running, Holding.begun, Holding.most = {}, [], 0
        Holding._changed, Holding._free = asyncio.Event(), False

    @classmethod
    def release(cls, *ids: int) -> None:
        for id in ids:
            Holding.running[id].set()

    @classmethod
    def release_all(cls) -> None:
        """Release all jobs, running and future ones."""
        Holding._free = True
        for event in Holding.running.values():
            event.set()

    @classmethod
    async def begin(cls, count: int) -> list[int]:
        """Wait until this number of jobs has begun, and return their ids."""
        async with asyncio.timeout(PATIENCE):
            while len(Holding.begun) < count:
                Holding._changed.clear()
                await Holding._changed.wait()
        return Holding.begun

    async def process(self, job: Job) -> Any:
        released = Holding.running[job.id] = asyncio.Event()
        Holding.begun.append(job.id)
        Holding.most = max(Holding.most, len(Holding.running))
        Holding._changed.set()
        try:
            if not Holding._free:
                await released.wait()
        finally:
            del Holding.running[job.id]
        return await self.outcome(job)

    async def outcome(self, job: Job) -> Any:
        return None
