"""A process of either library that runs jobs until SIGTERM: `mixed_node.py SIDE DSN PREFIX RUNS`.

SIDE is "ours" or "theirs", RUNS a file. The process says "up" when it runs. Both libraries know the
worker as `__main__.Mixed`.
"""

import asyncio
import os
import signal
import sys
from contextlib import AbstractAsyncContextManager
from typing import Any

import oban as oban_py
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine

import oban_sqla
from oban_sqla.config import oban_settings
from oban_sqla.dsn import database_url

oban_settings.SHORTEST_EXPIRY = 1.0

QUEUE = "mixed"
SIDE, DSN, PREFIX, RUNS = sys.argv[1:]
runs = os.open(RUNS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


async def process(job: Any) -> None:
    """Note the attempt before it ends. Fail the first attempt if the job says so."""
    # The file keeps the note even if the process is killed.
    os.write(runs, f"{job.id} {SIDE}\n".encode())
    await asyncio.sleep(0)
    if job.args.get("fails") and job.attempt == 1:
        raise ValueError("once")


@oban_py.worker(queue=QUEUE)
class Mixed:
    async def process(self, job: oban_py.Job) -> None:
        await process(job)

    def backoff(self, job: oban_py.Job) -> int:
        return 1


class Ours(oban_sqla.Worker, name="__main__.Mixed", queue=QUEUE):
    async def process(self, job: oban_sqla.Job) -> None:
        await process(job)

    def backoff(self, job: oban_sqla.Job) -> float:
        return 1.0


async def main() -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    pool = AsyncConnectionPool(DSN, min_size=1, max_size=10, open=False)
    engine = create_async_engine(database_url(DSN))
    node: AbstractAsyncContextManager[Any]
    if SIDE == "ours":
        node = oban_sqla.Oban(
            engine, prefix=PREFIX, queues={QUEUE: 20}, heartbeat_expiry=2.0, rescue_after=3.0
        )
    else:
        await pool.open()
        name, stager = f"theirs.{os.getpid()}", {"interval": 0.2}
        node = oban_py.Oban(pool=pool, prefix=PREFIX, queues={QUEUE: 20}, node=name, stager=stager)
    async with node:
        print("up", flush=True)
        await stopping.wait()
    await pool.close()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
