"""`HomeLoop`: the event loop to which the connections of an engine belong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import ref

from sqlalchemy.ext.asyncio import AsyncEngine

from .engine import with_own_pool


class HomeLoop:
    """The event loop in which the pool of an engine may be used.

    A connection belongs to the event loop that made it. If another event loop uses it, the
    connection breaks, also for the next user of the pool.
    """

    def __init__(self) -> None:
        self._loop: ref[asyncio.AbstractEventLoop] | None = None

    def settle(self) -> None:
        """Make the running event loop the home of the connections."""
        self._loop = ref(asyncio.get_running_loop())

    def is_running(self) -> bool:
        """Whether the home is the running event loop: the first open one that used the pool."""
        home = self._loop() if self._loop is not None else None
        if home is None or home.is_closed():
            self.settle()
            return True
        return home is asyncio.get_running_loop()

    @asynccontextmanager
    async def engine(self, engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
        """The engine, or in another event loop a temporary engine with its own pool."""
        if self.is_running():
            yield engine
            return
        apart = with_own_pool(engine)
        try:
            yield apart
        finally:
            await apart.dispose()
