"""pgqueuer, by asyncpg, its fastest driver."""

from typing import Any, Self

import asyncpg
from pgqueuer import AsyncpgDriver, PgQueuer, Queries
from pgqueuer.types import QueueExecutionMode

from benchmarks.contestant import Contestant


class Entrant(Contestant):
    waiting = "SELECT count(*) FROM pgqueuer WHERE status = 'queued'"
    finished = "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'"

    async def install(self) -> None:
        connection = await asyncpg.connect(self.dsn)
        await Queries(AsyncpgDriver(connection)).install()
        await connection.close()

    async def __aenter__(self) -> Self:
        self.connection = await asyncpg.connect(self.dsn)
        self.driver = AsyncpgDriver(self.connection)
        self.queries = Queries(self.driver)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.connection.close()

    async def enqueue_many(self, count: int) -> None:
        payloads = [b'{"number": %d}' % n for n in range(count)]
        await self.queries.enqueue(["nothing"] * count, [*payloads], [0] * count)

    async def enqueue(self) -> None:
        await self.queries.enqueue("nothing", b'{"number": 1}')

    async def drain(self, count: int, limit: int) -> None:
        queue = PgQueuer(self.driver)

        @queue.entrypoint("nothing")
        async def nothing(job: Any) -> None: ...

        await queue.run(batch_size=limit, mode=QueueExecutionMode.drain)
