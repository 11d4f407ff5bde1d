"""`oban-sqla web`."""

import signal
import socket
import time
import urllib.error
import urllib.request

from tests.cli.conftest import Say, Spawn
from tests.listening import PATIENCE


def test_web_serves_this_machine(spawn: Spawn, postgres_dsn: str, prefix: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ("web", "--port", str(port), "--dsn", postgres_dsn, "--prefix", prefix)
    process = spawn(*arguments)
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said.startswith(f"http://localhost:{port}/ shows the database")
    # The socket listens before the line is read, or soon after it.
    page = _get(f"http://127.0.0.1:{port}/queues")
    assert f"schema {prefix}" in page
    process.send_signal(signal.SIGINT)
    assert process.wait(20) in (0, -signal.SIGINT, 130)


def test_web_without_a_database_is_refused(call: Say) -> None:
    assert "OBAN_DSN" in call("web", code=2).stderr


def _get(url: str) -> str:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError) or time.monotonic() > until:
                raise
        time.sleep(0.01)
