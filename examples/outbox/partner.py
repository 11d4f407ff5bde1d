"""The server of a partner: it fails every other request, and prints the rest."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count


@contextmanager
def partner() -> Iterator[str]:
    """Run the server for a block, which gets its URL."""
    number = count(1)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            news = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fails = next(number) % 2 == 1
            print("the partner", "fails" if fails else f"has heard {news}", flush=True)
            self.send_response(503 if fails else 204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
