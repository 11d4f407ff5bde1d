"""procrastinate."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Self

import psycopg
from procrastinate import App, PsycopgConnector

from benchmarks.contestant import Drains, Enqueues, Idles, Started, Starts

# Without the triggers, which insert an event for each job.
FILL = """
SET session_replication_role = replica;
INSERT INTO procrastinate_jobs (queue_name, task_name, args, status, scheduled_at, attempts)
SELECT 'default', 'nothing', jsonb_build_object('number', n), 'succeeded'::procrastinate_job_status,
       NULL, 1
FROM generate_series(1, {finished}) n
UNION ALL
SELECT 'default', 'nothing', jsonb_build_object('number', n), 'todo',
       now() + interval '1 day' + n * interval '1 s', 0
FROM generate_series(1, {future}) n
"""


class Entrant(Enqueues, Drains, Starts, Idles):
    waiting = (
        "SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo' AND scheduled_at IS NULL"
    )
    finished = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self._declare(App(connector=PsycopgConnector(conninfo=dsn)))

    def _declare(self, app: App) -> None:
        self.app = app
        self.started: Started = print

        @app.task(name="nothing")
        async def nothing(number: int) -> None: ...

        @app.task(name="start")
        async def start(at: float) -> None:
            self.started(at)

        self.nothing: Any = nothing
        self.start: Any = start

    async def install(self) -> None:
        async with self.app.open_async():
            await self.app.schema_manager.apply_schema_async()

    async def __aenter__(self) -> Self:
        await self.app.open_async()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.app.close_async()

    async def enqueue_many(self, count: int) -> None:
        await self.nothing.batch_defer_async(*({"number": n} for n in range(count)))

    async def enqueue(self) -> None:
        await self.nothing.defer_async(number=1)

    @asynccontextmanager
    async def clients(self, count: int) -> AsyncIterator[Sequence[Callable[[], Awaitable[object]]]]:
        own = Entrant(self.dsn)
        own._declare(
            App(connector=PsycopgConnector(conninfo=self.dsn, min_size=count, max_size=count))
        )
        async with own:
            yield [own.enqueue] * count

    async def drain(self, count: int, limit: int) -> None:
        await self.app.run_worker_async(
            concurrency=limit, wait=False, install_signal_handlers=False
        )

    async def fill(self, finished: int, future: int) -> None:
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            await connection.execute(FILL.format(finished=finished, future=future).encode())

    @asynccontextmanager
    async def node(self, started: Started) -> AsyncIterator[None]:
        self.started = started
        async with self._worker(concurrency=20):
            yield

    async def start_now(self) -> None:
        await self.start.defer_async(at=time.monotonic())

    async def start_at(self, due: float) -> None:
        at = datetime.fromtimestamp(due, UTC)
        await self.start.configure(schedule_at=at).defer_async(at=due)

    @asynccontextmanager
    async def idle(self) -> AsyncIterator[None]:
        async with self._worker(concurrency=10, queues=["default", "mailers", "reports"]):
            yield

    @asynccontextmanager
    async def _worker(self, **options: Any) -> AsyncIterator[None]:
        run = self.app.run_worker_async(install_signal_handlers=False, **options)
        running = asyncio.create_task(run)
        yield
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
