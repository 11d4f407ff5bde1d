"""A program that leaves `asyncio.run` without stopping its instance ends without an error."""

import asyncio
import gc
import logging
import threading

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import NullPool

from oban_sqla import Job, Oban, Worker
from tests.databases import async_engine
from tests.listening import hear
from tests.runtime.conftest import until
from tests.services import services


class Slow(Worker, name="leaving.slow"):
    async def process(self, job: Job) -> None:
        await asyncio.sleep(60)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("moment", ["at once", "listening", "running a job"])
def test_a_loop_that_ends_with_a_running_node_logs_no_error(
    driver: str, moment: str, postgres_dsn: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        # The pool belongs to the user, who would have to dispose of kept connections.
        engine = async_engine(postgres_dsn, prefix, driver, poolclass=NullPool)
        oban = Oban(engine, queues={"default": 2})
        with hear(oban, "job_start") as starts:
            await oban.start()
            if moment == "running a job":
                await oban.enqueue(Slow.new())
                await starts.wait()
            elif moment == "listening":
                await until(lambda: services(oban).notifier.listening)

    threads = set(threading.enumerate())
    asyncio.run(main())
    gc.collect()
    # The heartbeat of the ended node stops.
    assert set(threading.enumerate()) <= threads
    with psycopg.connect(postgres_dsn) as connection:
        table = sql.Identifier(prefix, "oban_producers")
        query = sql.SQL("SELECT count(*) FROM {}").format(table)
        assert connection.execute(query).fetchone() == (0,)
    found = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in found] == []
