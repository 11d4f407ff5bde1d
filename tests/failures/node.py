"""A process that runs jobs until SIGTERM: `node.py DSN PREFIX LIMIT [OPTIONS]`.

It says "up" when it runs. Its jobs note their runs over a connection of their own, to the server
itself (the environment's RUNS_DSN), so that the wires that the test cuts are the instance's alone.
The options are `Oban`'s, in JSON, and `connect_args` for its engine, and `cron`: an expression.
"""

import asyncio
import json
import os
import signal
import sys
import time

import psycopg
from psycopg import sql
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from oban_sqla import Job, Oban, Worker
from oban_sqla.config import oban_settings
from oban_sqla.dsn import database_url
from oban_sqla.runtime import cron, service
from tests.failures.steps import Logged

# A test can't wait half a minute after each cut, or a minute after a blocked loop or a changed
# clock.
service.LONGEST_RETRY = 0.5
cron.LONGEST_SLEEP = 1.0
oban_settings.SHORTEST_EXPIRY = 1.0


class Note(Worker, name="failures.note", max_attempts=50):
    """A worker that notes its run in its own transaction, committed before it returns."""

    connection: psycopg.AsyncConnection | None = None
    turn = asyncio.Lock()
    insert: sql.Composed

    async def process(self, job: Job) -> None:
        async with self.turn:
            if Note.connection is None or Note.connection.closed:
                dsn = os.environ["RUNS_DSN"]
                Note.connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
            await Note.connection.execute(self.insert, [job.id, os.getpid()])
        await asyncio.sleep(job.args.get("seconds", 0))

    def backoff(self, job: Job) -> float:
        return 0.1


class Told(Worker, name="failures.told"):
    """The worker that follows discarded jobs."""

    async def process(self, job: Job) -> None: ...


class Failing(Worker, name="failures.failing", max_attempts=1, on_discard=Told):
    """A worker that fails, or kills its process."""

    async def process(self, job: Job) -> None:
        if job.args.get("fatal"):
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("always")


class Stuck(Worker, name="failures.stuck"):
    """A worker that never ends."""

    async def process(self, job: Job) -> None:
        print("stuck", flush=True)
        await asyncio.Event().wait()


class Blocking(Note, name="failures.block"):
    """A worker that blocks the event loop for half of the time, as no worker should."""

    async def process(self, job: Job) -> None:
        await super().process(job)
        print("blocks", flush=True)
        block(job.args["blocked"])


class Transfer(Worker, name="failures.transfer", max_attempts=50):
    """Moves money between two accounts, locking them in an order that causes deadlocks."""

    change: TextClause

    async def process(self, job: Job, session: AsyncSession) -> None:
        source, target, amount = job.args["transfer"]
        for id, change in ((source, -amount), (target, amount)):
            await session.execute(self.change, {"id": id, "change": change})

    def backoff(self, job: Job) -> float:
        return 0.1


def block(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.5)
        busy_until = time.monotonic() + 0.5
        while time.monotonic() < busy_until:
            pass


async def main(dsn: str, prefix: str, limit: str, given: str = "{}") -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    table = sql.Identifier(prefix, "runs")
    Transfer.change = text(
        f'UPDATE "{prefix}".accounts SET balance = balance + :change, moves = moves + 1'
        " WHERE id = :id"
    )
    Note.insert = sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(table)
    Logged.connect(os.environ["RUNS_DSN"], prefix)
    options = {"poll_interval": 0.2, "fallback_interval": 1.0, "shutdown_grace_period": 0.2}
    options |= json.loads(given)
    if entry := options.pop("cron", None):

        class Ticking(Note, name="failures.tick", cron=entry):
            """A cron worker that notes its ticks."""

    engine = create_async_engine(database_url(dsn), connect_args=options.pop("connect_args", {}))
    options.setdefault("queues", {"default": int(limit)})
    async with Oban(engine, prefix=prefix, **options):
        print("up", flush=True)
        await stopping.wait()
    await engine.dispose()
    await Logged.engine.dispose()
    if Note.connection is not None:
        await Note.connection.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
