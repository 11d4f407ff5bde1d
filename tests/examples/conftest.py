"""Start the processes of the examples as their READMEs do, and a server of a third party."""

import asyncio
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from oban_sqla import Job, Oban
from tests.examples.provider import PATIENCE, Provider

ROOT = Path(__file__).parents[2]


class Process:
    """A running command, whose output is kept."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def says(self, pattern: str) -> re.Match[str]:
        """Wait for the next line."""
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"it ended before it said {pattern!r}:\n{''.join(self.said)}")

    def kill(self) -> None:
        """End the process like `kill -9`."""
        self._popen.kill()
        self._end()

    def stop(self) -> int:
        """End the process like a service manager."""
        self._popen.send_signal(signal.SIGTERM)
        return self._end()

    def _end(self) -> int:
        try:
            code = self._popen.wait(PATIENCE)
        finally:
            self._popen.kill()
            self._reader.join()
        return code

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            for line in lines:
                self.said.append(line)
                self._lines.put(line)
        self._lines.put(None)


Spawn = Callable[..., Process]
Finished = Callable[[int], Job]


@pytest.fixture
def spawn(database_dsn: str) -> Iterator[Spawn]:
    """Start `python -m` with these arguments and variables.

    The processes are killed at the end, before the database is dropped.
    """
    started: list[Process] = []

    def spawn(*words: str, **environment: str) -> Process:
        process = Process([sys.executable, "-m", *words], environment)
        started.append(process)
        return process

    yield spawn
    for process in started:
        process.kill()


@pytest.fixture
def database_url(database_dsn: str) -> str:
    """The URL of the test's database for SQLAlchemy."""
    url = make_url(database_dsn).set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


@pytest.fixture
def finished(database_dsn: str) -> Finished:
    """Wait until a job is finished, whichever process runs it."""

    async def wait(id: int) -> Job:
        async with Oban(database_dsn) as oban:
            return await oban.wait(id, timeout=PATIENCE)

    return lambda id: asyncio.run(wait(id))


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


def alembic(directory: Path, *arguments: str, **environment: str) -> str:
    """Run Alembic in the directory of a project, as its users do, and return the output."""
    done = subprocess.run(
        [Path(sys.executable).with_name("alembic"), *arguments],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise AlembicError(done.stdout + done.stderr)
    return done.stdout


class AlembicError(Exception):
    """The command failed. The message is its output."""


def client_of(process: Process) -> httpx.Client:
    """A client of a web server, which prints its address."""
    url = process.says(r"[Rr]unning on (http://[\d.]+:\d+)")[1]
    return httpx.Client(base_url=url, timeout=PATIENCE)
