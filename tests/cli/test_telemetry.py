"""`oban-sqla start --metrics --tracing`: measure and trace a node from outside."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.cli.conftest import Cli, Say, Spawn
from tests.cli.test_run import WORKERS, at, end, enqueue, states, wait_for


@pytest.fixture(autouse=True)
def app(tmp_path: Path) -> None:
    package = tmp_path / "app"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "workers.py").write_text(WORKERS)


class Collector:
    """An OpenTelemetry collector that keeps all received data."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def spans(self) -> dict[str, str]:
        """The services by the names of their spans."""
        return {
            span.name: next(
                a.value.string_value for a in one.resource.attributes if a.key == "service.name"
            )
            for request in self.requests
            for one in request.resource_spans
            for scope in one.scope_spans
            for span in scope.spans
        }


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()
    thread.join()


def test_start_serves_metrics_health_and_readiness(
    spawn: Spawn, postgres_dsn: str, prefix: str
) -> None:
    enqueue(postgres_dsn, prefix, "Quick")
    process = spawn("start", *at(postgres_dsn, prefix), "--metrics", "127.0.0.1:0")
    found = re.search(r"at port (\d+)", wait_for(process, "served at port"))
    assert found is not None
    url = f"http://127.0.0.1:{found[1]}"
    wait_for(process, "ran 1")
    assert httpx.get(f"{url}/health").status_code == 200
    assert httpx.get(f"{url}/ready").status_code in (200, 503)
    text = httpx.get(f"{url}/metrics").text
    assert 'oban_queue_limit{oban="Oban",queue="default"} 5.0' in text
    assert 'oban_jobs_claimed_total{queue="default"} 1.0' in text
    assert "process_cpu_seconds_total" in text
    process.terminate()
    end(process)
    assert process.returncode == 0


def test_start_exports_traces(
    spawn: Spawn,
    postgres_dsn: str,
    prefix: str,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    enqueue(postgres_dsn, prefix, "Quick")
    process = spawn("start", *at(postgres_dsn, prefix), "--tracing")
    wait_for(process, "ran 1")
    process.terminate()
    said = end(process)
    assert process.returncode == 0, said
    assert collector.spans == {"process default": "oban-sqla"}


def test_a_collector_that_is_down_holds_up_neither_jobs_nor_the_stop(
    spawn: Spawn, postgres_dsn: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    for _ in range(3):
        enqueue(postgres_dsn, prefix, "Quick")
    process = spawn("start", *at(postgres_dsn, prefix), "--tracing")
    wait_for(process, "ran 3")
    process.terminate()
    said = end(process)
    assert process.returncode == 0, said
    assert states(postgres_dsn, prefix) == [("completed", 1)] * 3


@pytest.mark.parametrize(
    ("option", "module", "extra"),
    [
        (("--metrics", ":0"), "prometheus_client", "prometheus"),
        (("--tracing",), "opentelemetry", "opentelemetry"),
    ],
)
def test_a_missing_extra_is_named(
    cli: Cli,
    tmp_path: Path,
    postgres_dsn: str,
    prefix: str,
    option: tuple[str, ...],
    module: str,
    extra: str,
) -> None:
    # From here on, Python finds no module of this name, as if it were not installed.
    workers = tmp_path / "app" / "workers.py"
    workers.write_text(f"import sys\nsys.modules[{module!r}] = None\n{WORKERS}")
    done = cli("start", *at(postgres_dsn, prefix), *option)
    assert done.returncode == 1
    assert f"pip install 'oban-sqla[{extra}]'" in done.stderr


def test_an_invalid_address_is_refused(call: Say, postgres_dsn: str, prefix: str) -> None:
    done = call("start", *at(postgres_dsn, prefix), "--metrics", "nowhere", code=1)
    assert "metrics must be an address to listen at: 'nowhere' has no port" in done.stderr
