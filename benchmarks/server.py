"""The server of all contestants. Each run has a new database, copied from a template."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql

ROOT = Path(__file__).parents[1]
FINISHED, FUTURE = 500_000, 200_000
LONGEST = 180
"""Seconds that a step may take."""


class StepError(Exception):
    """A step failed, or took too long."""


class Server:
    """Creates databases for contestants, and runs the steps that prepare them."""

    def __init__(self, dsn: str, scale: float) -> None:
        self._dsn = dsn
        self._scale = scale
        self._templates: set[str] = set()
        self._numbers = count(1)

    @contextmanager
    def database(
        self, contestant: str, *, full: bool, settings: Mapping[str, str]
    ) -> Iterator[str]:
        """A fresh database with the tables of a contestant, empty or full of other jobs."""
        template = self.prepare(contestant, full)
        name = f"run_{next(self._numbers)}_{contestant}"
        self._execute("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, template)
        for key, value in settings.items():
            self._execute(f"ALTER DATABASE {{}} SET {key} = '{value}'", name)
        try:
            self._execute("CHECKPOINT")
            yield self._url(name)
        finally:
            self._execute("DROP DATABASE {} WITH (FORCE)", name)

    def prepare(self, contestant: str, full: bool) -> str:
        """Make the template for a contestant, if it does not exist yet, and return its name."""
        name = f"{'full' if full else 'empty'}_{contestant}"
        if name not in self._templates:
            self._execute(
                "DROP DATABASE IF EXISTS {} WITH (FORCE)", name
            )  # the template is incomplete
            if full:
                empty = self.prepare(contestant, False)
                self._execute("CREATE DATABASE {} TEMPLATE {}", name, empty)
                counts = (str(int(rows * self._scale)) for rows in (FINISHED, FUTURE))
                step("fill", contestant, self._url(name), *counts)
            else:
                self._execute("CREATE DATABASE {}", name)
                step("install", contestant, self._url(name))
            with psycopg.connect(self._url(name), autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
            self._templates.add(name)
        return name

    def _execute(self, statement: str, *names: str) -> None:
        identifiers = map(sql.Identifier, names)
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*identifiers))  # type: ignore[arg-type]

    def _url(self, name: str) -> str:
        """The URL of a database, in a form that asyncpg and SQLAlchemy also read."""
        parts = psycopg.conninfo.conninfo_to_dict(self._dsn)
        return f"postgresql://{parts['user']}@/{name}?host={parts['host']}&port={parts['port']}"


def _environment() -> dict[str, str]:
    # Without writable bytecode, each step would compile all modules again.
    kept = {key: os.environ[key] for key in os.environ if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(ROOT)}


def step(*arguments: str) -> str:
    """Run a step of `one.py`, and return the last line that it prints; `StepError` if it fails."""
    command = [sys.executable, "-m", "benchmarks.one", *arguments]
    # A process group of its own, so that the children of the step end with it.
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            raise StepError(f"took longer than {LONGEST} s") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise StepError(f"ended with {process.returncode}: see its traceback above")
    return said.splitlines()[-1] if said else ""
