"""Start processes that run jobs, and a table in which their jobs note each run."""

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job
from tests.proxy import Proxy

PATIENCE = 60.0
ROOT = Path(__file__).parents[2]

Spawn = Callable[..., Awaitable[Process]]


class Runs:
    """The table of runs, read over a connection of the test."""

    def __init__(self, dsn: str, prefix: str) -> None:
        self.dsn, self.prefix = dsn, prefix

    def _query(self, query: str, *params: object) -> list[tuple]:
        named = {
            name: sql.Identifier(self.prefix, name) for name in ("runs", "oban_jobs", "accounts")
        }
        named |= {"producers": sql.Identifier(self.prefix, "oban_producers")}
        named |= {"leaders": sql.Identifier(self.prefix, "oban_leaders")}
        named |= {"workflows": sql.Identifier(self.prefix, "oban_workflows")}
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(sql.SQL(query).format(**named), params)
            return cursor.fetchall() if cursor.description else []

    def install(self) -> None:
        self._query("CREATE TABLE IF NOT EXISTS {runs} (job_id bigint, pid int)")
        self._query("TRUNCATE {runs}")

    def count(self) -> int:
        return self._query("SELECT count(*) FROM {runs}")[0][0]

    def per_job(self) -> dict[int, int]:
        """The number of runs by job."""
        return dict(self._query("SELECT job_id, count(*) FROM {runs} GROUP BY 1"))

    def states(self) -> dict[str, int]:
        """The number of jobs by state."""
        return dict(self._query("SELECT state::text, count(*) FROM {oban_jobs} GROUP BY 1"))

    def attempts(self, state: str) -> set[int]:
        found = self._query("SELECT attempt FROM {oban_jobs} WHERE state::text = %s", state)
        return {attempt for (attempt,) in found}

    def rescued(self) -> dict[int, float]:
        """When the last attempt of each rescued job began, by the database's clock."""
        query = (
            "SELECT id, extract(epoch FROM attempted_at AT TIME ZONE 'UTC')::float"
            " FROM {oban_jobs} WHERE meta ? 'rescued'"
        )
        return dict(self._query(query))

    def followed(self) -> dict[int, int]:
        """The number of jobs that follow each discarded job."""
        query = (
            "SELECT (args->>'job_id')::bigint, count(*) FROM {oban_jobs}"
            " WHERE worker = 'failures.told' GROUP BY 1"
        )
        return dict(self._query(query))

    def open_accounts(self, count: int, balance: int) -> None:
        self._query("DROP TABLE IF EXISTS {accounts}")
        self._query("CREATE TABLE {accounts} (id int PRIMARY KEY, balance int, moves int)")
        query = "INSERT INTO {accounts} SELECT id, %s, 0 FROM generate_series(1, %s) AS id"
        self._query(query, balance, count)

    def accounts(self) -> dict[int, tuple[int, int]]:
        """The balance of each account, and the number of its changes."""
        rows = self._query("SELECT id, balance, moves FROM {accounts}")
        return {id: (balance, moves) for id, balance, moves in rows}

    def running_workflows(self) -> int:
        return self._query("SELECT count(*) FROM {workflows} WHERE state = 'executing'")[0][0]

    def completed(self) -> int:
        return self.states().get("completed", 0)

    def now(self) -> float:
        """The database's clock."""
        return self._query("SELECT extract(epoch FROM clock_timestamp())::float")[0][0]

    def ticks(self) -> list[datetime]:
        """The ticks of cron that have jobs."""
        rows = self._query("SELECT meta->>'cron_at' FROM {oban_jobs} ORDER BY 1")
        return [datetime.fromisoformat(tick) for (tick,) in rows]

    def leader(self, now: float | None = None) -> str | None:
        """The node that holds the lease, at an instant of a clock that is not the database's."""
        at = self.now() if now is None else now
        query = "SELECT node FROM {leaders} WHERE expires_at AT TIME ZONE 'UTC' > to_timestamp(%s)"
        rows = self._query(query, at)
        return rows[0][0].partition("/")[0] if rows else None

    def claimed_by(self) -> set[str]:
        """The producers of the executing jobs."""
        query = "SELECT attempted_by[2] FROM {oban_jobs} WHERE state = 'executing'"
        return {uuid for (uuid,) in self._query(query)}

    def producers(self) -> dict[str, str]:
        """The nodes of the producers with a heartbeat, by uuid."""
        return dict(self._query("SELECT uuid::text, node FROM {producers}"))

    def add_producer(self, node: str) -> None:
        """Add a producer with a heartbeat that no process keeps."""
        self._query(
            "INSERT INTO {producers} (uuid, node, queue) VALUES (gen_random_uuid(), %s, 'q')", node
        )

    async def until(self, holds: Callable[[], bool], what: str = "") -> None:
        """Poll until a condition is true."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    if await asyncio.to_thread(self._holds, holds):
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{what} {self.states()}, {self.count()} runs") from None

    def _holds(self, holds: Callable[[], bool]) -> bool:
        try:
            return holds()
        except psycopg.OperationalError:
            return False  # the server is not reachable

    async def all_completed(self, count: int) -> None:
        await self.until(lambda: self.states() == {"completed": count}, "not all completed:")


@pytest.fixture
def runs(postgres_dsn: str, prefix: str) -> Runs:
    runs = Runs(postgres_dsn, prefix)
    runs.install()
    return runs


@pytest.fixture
async def proxy(postgres_dsn: str) -> AsyncIterator[Proxy]:
    async with Proxy(postgres_dsn) as proxy:
        yield proxy


@pytest.fixture
async def spawn(postgres_dsn: str, prefix: str) -> AsyncIterator[Spawn]:
    """Start a process that runs jobs, and wait until it is up. It is killed at the end if it still
    runs.
    """
    processes: list[Process] = []

    async def spawn(
        dsn: str = postgres_dsn,
        *,
        limit: int = 20,
        runs_dsn: str = postgres_dsn,
        schema: str = prefix,
        **options: object,
    ) -> Process:
        environment = {**os.environ, "RUNS_DSN": runs_dsn, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.failures.node", dsn, schema, str(limit)]
        command.append(json.dumps(options))
        process = await asyncio.create_subprocess_exec(
            *command, stdout=PIPE, cwd=ROOT, env=environment
        )
        processes.append(process)
        await says(process, "up")
        return process

    yield spawn
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def says(process: Process, word: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        while (line := await process.stdout.readline()).decode().strip() != word:
            assert line, f"it ended before it said {word!r}"


async def ended(process: Process) -> int:
    async with asyncio.timeout(PATIENCE):
        return await process.wait()


def name_of(process: Process) -> str:
    """The name of the node of a process."""
    return f"{socket.gethostname()}.{process.pid}"


def notes(count: int, seconds: float = 0.0) -> list[Job]:
    return [Job("failures.note", {"seconds": seconds}, max_attempts=50) for _ in range(count)]


async def enqueue(sessions: async_sessionmaker[AsyncSession], jobs: list[Job]) -> None:
    async with sessions.begin() as session:
        session.add_all(jobs)
