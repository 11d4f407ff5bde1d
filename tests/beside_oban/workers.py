"""The same worker for oban-py and for our nodes, under one name. It follows the job's arguments."""

import asyncio
from typing import Any, ClassVar

import oban as oban_py

import oban_sqla
from tests.listening import PATIENCE

THEIRS, OURS = "theirs", "ours"


class Script:
    """The runs so far, and the gate at which jobs with `{"do": "wait"}` wait."""

    ran: ClassVar[list[tuple[str, int]]] = []
    begun: ClassVar[asyncio.Queue[tuple[str, int]]]
    gate: ClassVar[asyncio.Event]

    @classmethod
    def reset(cls) -> None:
        cls.ran.clear()
        cls.begun, cls.gate = asyncio.Queue(), asyncio.Event()

    @classmethod
    async def next_begun(cls) -> tuple[str, int]:
        """The library and the id of the next job that waits at the gate."""
        async with asyncio.timeout(PATIENCE):
            return await cls.begun.get()

    @classmethod
    async def play(cls, side: str, job: Any, library: Any) -> Any:
        cls.ran.append((side, job.id))
        match job.args.get("do"):
            case "fail" if job.attempt < job.args.get("times", 100) + 1:
                raise ValueError(f"no luck: {side}")
            case "cancel":
                return library.Cancel(f"not wanted: {side}")
            case "snooze" if job.attempt == 1 and not job.meta.get("snoozed", 0) >= 2:
                return library.Snooze(3600)
            case "record":
                return library.Record({"by": side})
            case "wait":
                cls.begun.put_nowait((side, job.id))
                await cls.gate.wait()
            case "wait for cancel":
                cls.begun.put_nowait((side, job.id))
                while True:
                    if job.cancelled():
                        return library.Cancel(f"heard: {side}")
                    await asyncio.sleep(0.01)
            case "yield":
                await asyncio.sleep(0)
        return None


@oban_py.worker(queue="shared", max_attempts=5)
class Theirs:
    """The worker as oban-py runs it."""

    async def process(self, job: oban_py.Job) -> Any:
        return await Script.play(THEIRS, job, oban_py)

    def backoff(self, job: oban_py.Job) -> int:
        return 3600


class Ours(oban_sqla.Worker, name=f"{Theirs.__module__}.Theirs", queue="shared", max_attempts=5):
    """The worker as our nodes run it, under the name that oban-py gave it."""

    async def process(self, job: oban_sqla.Job) -> Any:
        return await Script.play(OURS, job, oban_sqla)

    def backoff(self, job: oban_sqla.Job) -> float:
        return 3600.0
