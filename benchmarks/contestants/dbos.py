"""DBOS: a queue of durable workflows, each of which calls steps."""

import asyncio
from typing import Self

from dbos import DBOS, DBOSClient, DBOSConfig

from benchmarks.contestant import RunsWorkflows

QUEUE = "fans"
POLLING = 0.05
"""Seconds between two looks at the queue: 1 by default, with which it is slower here."""


@DBOS.step()
async def nothing(number: int) -> None: ...


@DBOS.workflow()
async def fan(width: int) -> None:
    await nothing(0)
    await asyncio.gather(*(nothing(number) for number in range(1, width + 1)))
    await nothing(width + 1)


class Entrant(RunsWorkflows):
    waiting = "SELECT count(*) FROM dbos.workflow_status WHERE status = 'ENQUEUED'"
    finished = "SELECT count(*) FROM dbos.operation_outputs WHERE error IS NULL"

    async def install(self) -> None:
        self._launch()
        DBOS.destroy()

    async def __aenter__(self) -> Self:
        self.ids: list[str] = []
        return self

    async def __aexit__(self, *error: object) -> None:
        DBOS.destroy()

    async def enqueue_workflows(self, count: int, width: int) -> None:
        client = DBOSClient(system_database_url=self.dsn)
        for _ in range(count):
            handle = await client.enqueue_async(
                {"queue_name": QUEUE, "workflow_name": fan.__qualname__}, width
            )
            self.ids.append(handle.get_workflow_id())
        client.destroy()

    async def run_workflows(self, count: int, width: int, limit: int) -> None:
        self._launch()
        await DBOS.register_queue_async(
            QUEUE, worker_concurrency=limit, polling_interval_sec=POLLING
        )
        for id in self.ids:
            handle = await DBOS.retrieve_workflow_async(id)
            await handle.get_result()

    def _launch(self) -> None:
        DBOS(
            config=DBOSConfig(name="benchmarks", system_database_url=self.dsn, log_level="WARNING")
        )
        DBOS.launch()
