"""procrastinate."""

from typing import Self

from procrastinate import App, PsycopgConnector

from benchmarks.contestant import Contestant


class Entrant(Contestant):
    waiting = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'"
    finished = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.app = App(connector=PsycopgConnector(conninfo=dsn))

        @self.app.task(name="nothing")
        async def nothing(number: int) -> None: ...

        self.nothing = nothing

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

    async def drain(self, count: int, limit: int) -> None:
        await self.app.run_worker_async(
            concurrency=limit, wait=False, install_signal_handlers=False
        )
