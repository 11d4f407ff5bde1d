"""Run commands in the process of the tests, or as processes."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner, Result

from oban_sqla.cli.app import app
from oban_sqla.workers import registry
from oban_sqla.workers.unfinished import unfinished
from tests.forked import Completed, Process, Python

COMMAND = ("-m", "oban_sqla.cli")

Cli = Callable[..., Completed]
Say = Callable[..., Result]
Spawn = Callable[..., Process]


def _is_ours(variable: str) -> bool:
    return variable.startswith("OBAN_") and not variable.startswith("OBAN_TEST_")


def _environment(dsn: str | None) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if not _is_ours(key)}
    environment |= {"COLUMNS": "200", "NO_COLOR": "1"}
    return environment if dsn is None else environment | {"OBAN_DSN": dsn}


@pytest.fixture
def cli(python: Python, tmp_path: Path) -> Cli:
    """Run a command to its end: `cli("schema", "current", dsn=OBAN_DSN)`."""

    def run(*arguments: str, dsn: str | None = None) -> Completed:
        return python.run(*COMMAND, *arguments, cwd=tmp_path, env=_environment(dsn))

    return run


@pytest.fixture
def spawn(python: Python, tmp_path: Path) -> Iterator[Spawn]:
    """Start a command with a pipe for its output. It is killed if the test leaves it running."""
    processes = []

    def spawn(*arguments: str, dsn: str | None = None) -> Process:
        process = python.start(*COMMAND, *arguments, cwd=tmp_path, env=_environment(dsn))
        processes.append(process)
        return process

    yield spawn
    for process in processes:
        process.kill()
        process.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, without variables of the environment.

    Modules that commands import from it are not known to other tests.
    """
    path = [*sys.path]
    for variable in os.environ:
        if _is_ours(variable):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.path[:] = path
    modules = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    imported = [name for name, file in modules.items() if (file or "").startswith(str(tmp_path))]
    for name in imported:
        del sys.modules[name]
    if imported:
        # A known worker keeps the classes of its module alive.
        ours = tuple(f"{name}." for name in imported)
        origins = {
            name: known.declaration.origin for name, known in registry._registrations.items()
        }
        for name in [name for name, origin in origins.items() if origin.startswith(ours)]:
            del registry._registrations[name]
        # A class lives until it is garbage-collected, and nodes look for workers without process().
        gc.collect()
        assert not [cls for cls in unfinished() if cls.__module__ in imported]


@pytest.fixture
def call(here: Path) -> Iterator[Say]:
    """Run a command in this process: `call("config", "check", code=1).stdout`."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def call(*arguments: str, code: int = 0, input: str | None = None) -> Result:
        done = CliRunner().invoke(app, arguments, input=input, prog_name="oban-sqla")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def on(call: Say, postgres_dsn: str, prefix: str) -> Say:
    """`call`, on the database of the test."""

    def on(*arguments: str, **options: Any) -> Result:
        return call(*arguments, "--dsn", postgres_dsn, "--prefix", prefix, **options)

    return on


@pytest.fixture
def new_prefix(postgres_dsn: str) -> Iterator[str]:
    """The name of a schema that does not exist yet. It is dropped at the end."""
    name = f"cli_{uuid4().hex[:8]}"
    yield name
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name))
        connection.execute(drop)
