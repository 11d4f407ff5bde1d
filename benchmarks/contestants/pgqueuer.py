"""pgqueuer, through asyncpg, its fastest driver."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Self

import asyncpg
from pgqueuer import AsyncpgDriver, PgQueuer, Queries

from benchmarks.contestant import Drains, Enqueues, Idles, Started, Starts

# pgqueuer moves finished jobs to another table.
FILL = """
INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority)
SELECT n, 'successful', 'nothing', 0 FROM generate_series(1, {finished}) n;
INSERT INTO pgqueuer (entrypoint, payload, priority, status, execute_after)
SELECT 'nothing', '{{"number": 1}}', 0, 'queued', now() + interval '1 day' + n * interval '1 s'
FROM generate_series(1, {future}) n
"""


class Entrant(Enqueues, Drains, Starts, Idles):
    waiting = "SELECT count(*) FROM pgqueuer WHERE status = 'queued' AND execute_after <= now()"
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

    @asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[Sequence[Callable[[], Awaitable[object]]]]:
        async with AsyncExitStack() as stack:
            # A connection per client: pgqueuer's pool driver resets them after each enqueue.
            enqueues = []
            for _ in range(count):
                connection = await asyncpg.connect(self.dsn)
                stack.push_async_callback(connection.close)
                queries = Queries(AsyncpgDriver(connection))
                enqueues.append(partial(queries.enqueue, "nothing", b'{"number": 1}'))
            yield enqueues

    async def drain(self, count: int, limit: int) -> None:
        queue = PgQueuer(self.driver)
        left = count

        @queue.entrypoint("nothing")
        async def nothing(job: Any) -> None:
            nonlocal left
            left -= 1
            # Not the drain mode: it also waits for jobs that are due tomorrow.
            if not left:
                queue.shutdown.set()

        await queue.run(batch_size=limit)

    async def fill(self, finished: int, future: int) -> None:
        connection = await asyncpg.connect(self.dsn)
        await connection.execute(FILL.format(finished=finished, future=future))
        await connection.close()

    @asynccontextmanager
    async def node(self, started: Started) -> AsyncIterator[None]:
        connection = await asyncpg.connect(self.dsn)
        driver = AsyncpgDriver(connection)
        async with _node(driver, lambda job: started(json.loads(job.payload)["at"]), "start"):
            yield
        await connection.close()

    async def start_now(self) -> None:
        await self.queries.enqueue("start", json.dumps({"at": time.monotonic()}).encode())

    async def start_at(self, due: float) -> None:
        payload = json.dumps({"at": due}).encode()
        later = timedelta(seconds=due - time.time())
        await self.queries.enqueue("start", payload, execute_after=later)

    @asynccontextmanager
    async def idle(self) -> AsyncIterator[None]:
        async with _node(self.driver, print, "default", "mailers", "reports"):
            yield


@asynccontextmanager
async def _node(
    driver: AsyncpgDriver, call: Callable[[Any], object], *entrypoints: str
) -> AsyncIterator[None]:
    queue = PgQueuer(driver)
    for entrypoint in entrypoints:

        @queue.entrypoint(entrypoint)
        async def run(job: Any) -> None:
            call(job)

    running = asyncio.create_task(queue.run())
    yield
    queue.shutdown.set()
    await running
