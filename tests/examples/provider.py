"""An HTTP server of a third party, whose answers the test chooses one by one."""

import json
import queue
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE = 60.0


@dataclass
class Call:
    """A request that waits for an answer of the test."""

    path: str
    headers: dict[str, str]
    body: bytes
    _answers: queue.SimpleQueue[tuple[int, str]] = field(default_factory=queue.SimpleQueue)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def answer(self, status: int = 200, text: str = "") -> None:
        self._answers.put((status, text))

    def wait(self) -> tuple[int, str]:
        return self._answers.get(timeout=PATIENCE)


class Provider:
    """A server that listens on its own port, in threads, until it is closed."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._given: list[Call] = []
        calls = self._calls

        class Handler(BaseHTTPRequestHandler):
            def handle_call(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                call = Call(self.path, dict(self.headers), body)
                calls.put(call)
                status, text = call.wait()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(text.encode())))
                    self.end_headers()
                    self.wfile.write(text.encode())
                except OSError:
                    pass  # the client was killed

            do_GET = do_POST = handle_call  # noqa: N815 - http.server's names

            def log_message(self, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def call(self) -> Call:
        """Wait for the next request."""
        call = self._calls.get(timeout=PATIENCE)
        self._given.append(call)
        return call

    def close(self) -> None:
        self._server.shutdown()
        while not self._calls.empty():
            self.call()
        for call in self._given:
            call.answer(503)  # answer requests that still wait
        self._server.server_close()
        self._thread.join()
