"""Await events instead of sleeping."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from oban_sqla import Oban

PATIENCE = 20.0


async def timers() -> None:
    """Wait until all timers of the event loop that are due by now have run."""
    due = asyncio.Event()
    asyncio.get_running_loop().call_later(0, due.set)
    await due.wait()


class Heard:
    """The events of one name that an instance emitted since the `with` began."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._changed = asyncio.Event()

    def add(self, oban: Oban, data: Any) -> None:
        self.events.append(data)
        self._changed.set()

    async def wait(self, count: int = 1) -> list[Any]:
        """Wait for this number of events, and return them."""
        await self.until(lambda events: len(events) >= count)
        return self.events

    async def counted(self, count: int) -> None:
        """Wait until the sum of `count`, such as acknowledged jobs, reaches a number."""
        await self.until(lambda events: sum(e.count for e in events) >= count)

    async def until(self, holds: Callable[[list[Any]], bool]) -> None:
        """Wait until a condition on the events so far is true."""
        async with asyncio.timeout(PATIENCE):
            while not holds(self.events):
                self._changed.clear()
                await self._changed.wait()


@contextmanager
def hear(target: Oban | type[Oban], name: str) -> Iterator[Heard]:
    """Hear one kind of event: `with hear(oban, "job_stop") as stops: ...; await stops.wait(3)`."""
    heard = Heard()
    listener = heard.add
    event.listen(target, name, listener)
    try:
        yield heard
    finally:
        event.remove(target, name, listener)
