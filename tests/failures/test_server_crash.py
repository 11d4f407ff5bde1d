"""A server that crashes in the middle of a drain."""

import asyncio
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from oban_sqla.embedded import embedded_postgres
from tests.failures.bank import Bank
from tests.failures.conftest import PATIENCE, Spawn
from tests.failures.test_wires import installed

pytestmark = pytest.mark.torture


def postmaster(dsn: str) -> psutil.Process:
    data = Path(str(conninfo_to_dict(dsn)["host"]))
    return psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))


def kill_one_backend(dsn: str) -> None:
    """Kill a backend, so that the postmaster restarts all others."""
    with suppress(psycopg.OperationalError), psycopg.connect(dsn) as connection:
        (pid,) = connection.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1"
        ).fetchone()
        psutil.Process(pid).kill()


def kill_postmaster(dsn: str) -> None:
    """Kill the postmaster, and wait until its backends have noticed."""
    process = postmaster(dsn)
    processes = [process, *process.children()]
    process.kill()
    psutil.wait_procs(processes, timeout=PATIENCE)


def shut_down_immediately(dsn: str) -> None:
    """Stop the server without a checkpoint, as `pg_ctl stop -m immediate` does."""
    process = postmaster(dsn)
    process.send_signal(signal.SIGQUIT)
    process.wait(PATIENCE)


@pytest.mark.parametrize("crash", [kill_postmaster, shut_down_immediately])
async def test_money_is_moved_once_while_the_server_crashes(
    spawn: Spawn, crash: Callable[[str], None]
) -> None:
    """On two nodes, jobs are claimed ahead and outcomes wait."""
    with tempfile.TemporaryDirectory(prefix="oban-") as directory:
        server = embedded_postgres(directory)
        async with server as dsn:
            bank = Bank(installed(dsn))
            nodes = await bank.open(spawn)
        for done in (200, 600):
            async with server:
                await bank.runs.until(lambda done=done: bank.runs.completed() >= done)
                await asyncio.to_thread(crash, dsn)
        async with server:
            await bank.close(nodes)


async def test_money_is_moved_once_while_backends_are_killed(spawn: Spawn) -> None:
    """After each kill, the postmaster ends all other backends, and recovers."""
    with tempfile.TemporaryDirectory(prefix="oban-") as directory:
        async with embedded_postgres(directory) as dsn:
            bank = Bank(installed(dsn))
            nodes = await bank.open(spawn)
            for done in (200, 600):
                await bank.runs.until(lambda done=done: bank.runs.completed() >= done)
                await asyncio.to_thread(kill_one_backend, dsn)
            await bank.close(nodes)
