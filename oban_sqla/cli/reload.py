"""`oban-sqla start --reload`: restart the process when the code changes (extra `reload`)."""

import signal
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from .failures import fail, warn

OPTION = "--reload"
# Seconds until a process that does not stop is killed.
PATIENCE = 5.0


def run_reloading(arguments: list[str]) -> None:
    """Run `oban-sqla` with the arguments, and restart it when a Python or TOML file changes.

    Files in the working directory are watched until SIGTERM or SIGINT.
    """
    try:
        watchfiles: Any = import_module("watchfiles")
    except ModuleNotFoundError:
        fail("--reload needs the extra: pip install 'oban-sqla[reload]'")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
    process = _start(arguments)
    try:
        changes = watchfiles.watch(
            Path.cwd(),
            watch_filter=watchfiles.PythonFilter(extra_extensions=(".toml",)),
            stop_event=stopping,
            raise_interrupt=False,
        )
        for changed in changes:
            names = sorted({Path(path).name for _, path in changed})
            warn(f"{', '.join(names)} changed: starting again")
            _stop(process)
            process = _start(arguments)
    finally:
        _stop(process)
    raise typer.Exit(0)


def _start(arguments: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "oban_sqla.cli", *arguments])


def _stop(process: "subprocess.Popen[bytes]") -> None:
    # Two signals, since the first one only begins a graceful stop.
    for end in (process.terminate, process.terminate, process.kill):
        if process.poll() is not None:
            return
        end()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue
