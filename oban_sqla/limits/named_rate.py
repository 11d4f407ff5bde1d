"""`NamedRate`: use the permits of a rate outside of jobs."""

import asyncio
import math
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from ..limiting import Rate
from ..models import validation
from ..models.partition import rate_id
from ..runtime.database import Database
from ..runtime.raw_statement import RawStatement
from ..statements.announce import announce, announcement
from ..wakeups import Wakeup
from ..workers.declaration import Declaration
from ..workers.registry import declarations
from .joined_permits import Transactional, take_joined
from .lock import lock_rates
from .permits import reset_rate, take_permits

SHORTEST_WAIT = 0.005


class NamedRate:
    """A rate that a worker declares, by its name. Jobs and this code share its permits::

    await oban.rate("ses").acquire(3)  # a request with three recipients
    """

    __module__ = "oban_sqla"

    def __init__(self, database: Database, name: str, key: object = None) -> None:
        self._database = database
        self.name = name
        self._rate = _declared(name)
        self._id = rate_id(name, self._rate, key)
        self._take = RawStatement(database, take_permits(), behind=lock_rates())

    async def acquire(
        self,
        permits: int = 1,
        /,
        *,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - it says what was not there
        conn: Transactional | None = None,
    ) -> None:
        """Take permits, waiting until there are enough. They count for jobs, too.

        timeout: seconds or a `timedelta`; `TimeoutError` if there are not enough permits by then.
        conn: a session or connection of SQLAlchemy, or a connection or cursor of psycopg, whose
            transaction takes the permits. A rollback gives them back. From then until the
            transaction ends, queues with limited jobs or a rate start no job on any node, and no
            other code takes permits: so take them last. The server ends a transaction that is idle
            for 5 s after it took permits.

        `ValueError` for more permits than the rate can ever have, and for a transaction that is
        REPEATABLE READ or SERIALIZABLE. `TypeError` for another `conn`.
        """
        weight = self._rate.weighed(permits)
        longest = None if timeout is None else validation.delay("timeout", timeout).total_seconds()
        until = math.inf if longest is None else time.monotonic() + longest
        # Sleep as long as the database says, since no notification tells of a new permit.
        while (seconds := await self._take_or_wait(weight, conn)) is not None:
            if (left := until - time.monotonic()) <= 0:
                # Nothing is cancelled on the way, since that would break the caller's connection.
                raise TimeoutError(
                    f"there were not {permits} permits of rate {self.name!r} within {longest:g} s"
                )
            await asyncio.sleep(min(seconds, left))

    async def available(self) -> int:
        """The number of available permits."""
        permits: int = (await self._ask(0))[1]
        return permits

    async def reset(self) -> None:
        """Forget all starts, and release the rate if a job holds it by `RateLimited`."""
        await self._verify()
        await self._database.fetch(reset_rate(), {"rate_id": self._id})
        queues = frozenset(str(worker.queue) for worker in _workers(self.name))
        news = announcement(Wakeup(queues))
        await self._database.fetch(announce(prefix=self._database.prefix), news)

    async def _take_or_wait(self, weight: int, conn: Transactional | None) -> float | None:
        """Seconds to wait for permits; `None` if they were taken."""
        taken, _, next_in = await self._ask(weight, conn)
        return None if taken else max(next_in or 0.0, SHORTEST_WAIT)

    async def _ask(self, weight: int, conn: Transactional | None = None) -> Any:
        await self._verify()
        rate = self._rate
        terms = {"allowed": rate.allowed, "burst": rate.burst, "period": rate.per}
        own = {"home": self._database.prefix, "rate_id": self._id, "weight": weight}
        if conn is not None:
            return await take_joined(conn, {**terms, **own}, self._database.schemas)
        (row,) = await self._take.fetch({**terms, **own})
        return row

    async def _verify(self) -> None:
        if self._database.prefix is None:
            await self._database.verify()

    def __repr__(self) -> str:
        return f"<NamedRate {self._id!r}: {self._rate!r}>"


def _declared(name: str) -> Rate:
    """The rate of this name; `LookupError` if no imported worker declares it."""
    for worker in _workers(name):
        rate: Rate = worker.rate
        return rate
    known = sorted({w.rate.name or w.name for w in declarations() if w.rate is not None})
    names = ", ".join(known) or "none"
    raise LookupError(f"no imported worker has a rate of the name {name!r}; there are {names}")


def _workers(name: str) -> Iterator[Declaration]:
    for worker in declarations():
        if worker.rate is not None and name == (worker.rate.name or worker.name):
            yield worker
