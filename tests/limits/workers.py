"""Workers that run until the test lets them go."""

import asyncio
from typing import Any, ClassVar

from oban_sqla import Job, Worker
from tests.listening import PATIENCE


class Holding(Worker, queue="limits"):
    """Runs until it is released; the class knows what runs, and how many ran at once at most."""

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
        """Let all go that run, and all that will."""
        Holding._free = True
        for event in Holding.running.values():
            event.set()

    @classmethod
    async def begin(cls, count: int) -> list[int]:
        """The ids of all that have begun, once there are so many."""
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
