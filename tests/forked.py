"""Start Python processes that have most modules imported already.

`python.start("-m", "alembic", "current")` is like `subprocess.Popen`, in a fraction of the time: a
server has imported the modules, and forks for each process. It has no threads and no connections.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any

ROOT = Path(__file__).parents[1]
IMPORTED = ("alembic.config", "oban_sqla.cli.app", "psycopg", "sqlalchemy.ext.asyncio")
LONGEST_REQUEST = 100_000

Completed = subprocess.CompletedProcess[str]


class Process:
    """A process that was forked, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, channel: socket.socket, stdout: IO[str]) -> None:
        self.stdout = stdout
        self.returncode: int | None = None
        self._channel = channel
        self.pid = int(channel.recv(100))

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 60) -> int:
        """Wait for the exit code. A process that runs for longer is killed."""
        if self.returncode is None:
            with self._channel, self._ended_after(timeout):
                self.returncode = int(self._channel.recv(100))
        return self.returncode

    def communicate(self, timeout: float = 60) -> tuple[str, None]:
        """The rest of what the process prints."""
        with self.stdout, self._ended_after(timeout):
            said = self.stdout.read()
        self.wait()
        return said, None

    def close(self) -> None:
        self.stdout.close()
        self.wait()

    @contextmanager
    def _ended_after(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self.kill)
        timer.start()
        yield
        timer.cancel()
        timer.join()


class Python:
    """The server that forks processes, and the way to ask it for one."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-u", "-m", "tests.forked", str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def close(self) -> None:
        self._requests.close()
        self._server.wait()

    def start(self, *arguments: str, cwd: Path, env: Mapping[str, str] = os.environ) -> Process:
        """Start a process, whose stdout and stderr are one pipe."""
        ours, theirs = os.pipe()
        with open(theirs) as stdout:
            channel = self._ask(arguments, cwd, env, stdout, stdout)
        return Process(channel, open(ours))

    def run(
        self, *arguments: str, cwd: Path, env: Mapping[str, str] = os.environ, timeout: float = 60
    ) -> Completed:
        """Run a process to its end."""
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            process = Process(self._ask(arguments, cwd, env, stdout, stderr), stdout)
            process.wait(timeout)
            for stream in (stdout, stderr):
                stream.seek(0)
            said = stdout.read(), stderr.read()
        return subprocess.CompletedProcess(arguments, process.wait(), *said)

    def _ask(
        self, arguments: tuple[str, ...], cwd: Path, env: Mapping[str, str], *streams: IO[str]
    ) -> socket.socket:
        request = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": dict(env)}).encode()
        assert len(request) < LONGEST_REQUEST
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            files = [*(stream.fileno() for stream in streams), theirs.fileno()]
            socket.send_fds(self._requests, [request], files)
        return ours


def _serve(requests: socket.socket) -> Any:
    """Fork for each request. Returns only in the forked processes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, files, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, 3)
        if not request:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _keep(json.loads(request), *files)
        for file in files:
            os.close(file)


def _keep(request: Any, stdout: int, stderr: int, channel: int) -> Any:
    """Fork the process, and tell its id and how it ends. Returns only in the process."""
    pid = os.fork()
    if pid == 0:
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    if pid == 0:
        os.close(channel)
        return request
    with socket.socket(fileno=channel) as told:
        told.send(b"%d" % pid)
        _, status = os.waitpid(pid, 0)
        told.send(b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _run(arguments: list[str], cwd: str, env: dict[str, str]) -> None:
    """Go on as `python ARGUMENTS` would."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    first, *rest = arguments
    if first == "-m":
        sys.path[0] = cwd
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path[0] = ""
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = ModuleType("__main__")
        exec(rest[0], vars(sys.modules["__main__"]))
    else:
        path = Path(first).absolute()
        sys.path[0] = str(path if path.is_dir() else path.parent)
        sys.argv = arguments
        runpy.run_path(str(path), run_name="__main__")


class _Exit:
    """The end of a process, after the functions that were registered with `atexit`.

    Python's own end would take apart all that was imported.
    """

    status = 1

    def __call__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.status)


if __name__ == "__main__":
    atexit.register(exit := _Exit())  # the first one is called last
    for name in IMPORTED:
        import_module(name)
    gc.freeze()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        _run(**request)
        exit.status = 0
    except SystemExit as error:
        exit.status = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
