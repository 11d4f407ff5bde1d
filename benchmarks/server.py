"""The server of all contestants, and the databases: one from a template for each run."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

ROOT = Path(__file__).parents[1]
FINISHED, FUTURE = 500_000, 200_000
LONGEST = 600
"""Seconds that a step may take."""


class Server:
    """Databases on a server, and steps in processes of their own."""

    def __init__(self, dsn: str, scale: float) -> None:
        self._dsn = dsn
        self._scale = scale
        self._templates: set[str] = set()

    @contextmanager
    def database(
        self, contestant: str, *, full: bool, settings: Mapping[str, str]
    ) -> Iterator[str]:
        """A fresh database with the tables of a contestant, empty or full of other jobs."""
        template = self.prepare(contestant, full)
        name = f"bench_{contestant}"
        self._execute("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, template)
        for key, value in settings.items():
            self._execute(f"ALTER DATABASE {{}} SET {key} = '{value}'", name)
        try:
            self._execute("CHECKPOINT")
            yield self._url(name)
        finally:
            self._execute("DROP DATABASE {} WITH (FORCE)", name)

    def prepare(self, contestant: str, full: bool) -> str:
        """Make the template of such databases, if it is not there yet, and return its name."""
        name = f"{'full' if full else 'empty'}_{contestant}"
        if name not in self._templates:
            if full:
                empty = self.prepare(contestant, False)
                self._execute("CREATE DATABASE {} TEMPLATE {}", name, empty)
                counts = (str(int(count * self._scale)) for count in (FINISHED, FUTURE))
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
        """A URL, which asyncpg and SQLAlchemy read, too."""
        parts = psycopg.conninfo.conninfo_to_dict(self._dsn)
        return f"postgresql://{parts['user']}@/{name}?host={parts['host']}&port={parts['port']}"


def _environment() -> dict[str, str]:
    # Where bytecode may not be written, each step would compile everything anew.
    kept = {key: os.environ[key] for key in os.environ if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(ROOT)}


def step(*arguments: str) -> str:
    """Do a step of `one.py`, and return the last line that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.one", *arguments],
        cwd=ROOT,
        env=_environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=LONGEST,
        check=True,
    )
    return done.stdout.splitlines()[-1] if done.stdout else ""
