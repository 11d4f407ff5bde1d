"""Processes of both libraries on one table, some of them killed: each job ends once."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import oban as oban_py
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job
from tests.beside_oban.conftest import Table

pytestmark = [pytest.mark.oban, pytest.mark.torture, pytest.mark.timeout(300)]

Sessions = async_sessionmaker[AsyncSession]
Spawn = Callable[[str], Awaitable[Process]]

ROOT = Path(__file__).parents[2]
COUNT = 20_000
PATIENCE = 120.0


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The file in which the processes note their attempts."""
    return tmp_path / "runs"


@pytest.fixture
async def spawn(postgres_dsn: str, prefix: str, runs: Path) -> AsyncIterator[Spawn]:
    """Start a node of either library. It is killed at the end if it still runs."""
    processes: list[Process] = []

    async def spawn(side: str) -> Process:
        command = [sys.executable, "-m", "tests.beside_oban.mixed_node"]
        command += [side, postgres_dsn, prefix, str(runs)]
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, cwd=ROOT)
        processes.append(process)
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readline() == b"up\n"
        return process

    yield spawn
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def args(n: int) -> dict[str, object]:
    return {"n": n, "fails": True} if n % 20 == 0 else {"n": n}


async def enqueue(sessions: Sessions, client: oban_py.Oban) -> None:
    """Enqueue half of the jobs through each library, a tenth of them for two seconds later."""
    for start in range(0, COUNT, 1000):
        numbers = range(start, start + 1000)
        if start // 1000 % 2:
            async with sessions.begin() as session:
                session.add_all(
                    Job("__main__.Mixed", args(n), queue="mixed", max_attempts=20) for n in numbers
                )
        else:
            await client.enqueue_many(
                oban_py.Job(
                    worker="__main__.Mixed",
                    args=args(n),
                    queue="mixed",
                    **({"scheduled_in": 2} if n % 5 == 1 else {}),
                )
                for n in numbers
            )


async def test_each_of_20000_jobs_ends_once_while_nodes_are_killed(
    spawn: Spawn, sessions: Sessions, client: oban_py.Oban, table: Table, runs: Path
) -> None:
    nodes = [(side, await spawn(side)) for side in ("ours", "theirs") * 2]
    await enqueue(sessions, client)

    async def ended(count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                if (await table.states()).get("completed", 0) >= count:
                    return
                await asyncio.sleep(0.05)

    await ended(COUNT // 4)
    for _, node in nodes[:2]:
        node.kill()
        await node.wait()
    # A leader of oban-py deletes the row of a dead node after a minute.
    dead = f"theirs.{nodes[1][1].pid}"
    await table.query("DELETE FROM {oban_producers} WHERE node = %s", dead)
    await ended(COUNT)

    assert await table.states() == {"completed": COUNT}
    lines = (await asyncio.to_thread(runs.read_text)).splitlines()
    noted = [line.split() for line in lines]
    times = Counter(int(id) for id, _ in noted)
    assert {side for _, side in noted} == {"ours", "theirs"}
    jobs = await table.query(
        "SELECT id, attempt, args ? 'fails' AS fails, meta ? 'rescued' AS rescued FROM {oban_jobs}"
    )
    # Only attempts of a killed process may run twice.
    assert all(0 < times[job["id"]] <= job["attempt"] for job in jobs)
    assert 0 < sum(job["rescued"] for job in jobs) < COUNT / 20
    for job in jobs:
        if not job["rescued"]:
            assert times[job["id"]] == job["attempt"] == (2 if job["fails"] else 1)
    for _, node in nodes[2:]:
        node.terminate()
        assert await node.wait() == 0
