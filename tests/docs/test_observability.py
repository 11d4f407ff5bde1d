"""Prometheus accepts the dashboard and the alerts of docs/, and nodes export what they ask for."""

import asyncio
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from oban_sqla import Job, Oban, Worker, instances
from oban_sqla.contrib import instruments, prometheus
from oban_sqla.contrib.check_ups import CheckUps
from oban_sqla.contrib.endpoint import serving
from oban_sqla.events import (
    GiveBackStop,
    OutcomeDelayed,
    OutcomeRefused,
    RescueStop,
    ServiceFailed,
    emit,
)
from tests.conftest import StartOban
from tests.docs.page import DOCS
from tests.listening import hear
from tests.runtime.conftest import until

DASHBOARD = DOCS / "observability" / "dashboard.json"
ALERTS = DOCS / "observability" / "alerts.yml"
ALERTS_TEST = Path(__file__).with_name("alerts_test.yml")

promtool = shutil.which("promtool")
server = shutil.which("prometheus")
needs_promtool = pytest.mark.skipif(promtool is None, reason="promtool is not installed")


class Work(Worker, name="tests.docs.observability.Work", max_attempts=2):
    async def process(self, job: Job) -> None:
        if job.args.get("fail"):
            raise LookupError("no")

    def backoff(self, job: Job) -> float:
        return 0.01


@pytest.fixture
async def registry(start: StartOban, caplog: pytest.LogCaptureFixture) -> Any:
    """The registry of a node that ran jobs and had failures."""
    registry = CollectorRegistry()
    prometheus.attach(registry)
    try:
        with hear(Oban, "jobs_counted") as counts:
            oban = await start(queues={"default": 5}, poll_interval=0.05)
            await counts.wait()
        with hear(oban, "job_stop") as stops, hear(oban, "job_exception") as exceptions:
            await oban.enqueue_many([Work.new(), Work.new({"fail": True})])
            await oban.enqueue(Work.new(schedule_in=0.5))
            await oban.enqueue_many([Work.new({"n": 1}, unique=True) for _ in range(2)])
            await stops.wait(3)
            await exceptions.wait(2)
        await CheckUps(oban).run_once()
        # Samples of incidents that a test can't cause on demand.
        emit(oban, "give_back_stop", GiveBackStop("default", (1,)))
        emit(oban, "rescue_stop", RescueStop((1,), (), (), 0.1))
        emit(oban, "service_failed", ServiceFailed("stager", OSError()))
        emit(oban, "outcome_refused", OutcomeRefused("default", 1, ValueError()))
        emit(oban, "outcome_delayed", OutcomeDelayed("default", 1, "locked"))
        yield registry
    finally:
        prometheus.detach()
        caplog.clear()


@pytest.fixture
def exposed(registry: CollectorRegistry) -> str:
    """The samples that a scrape of the node returns."""
    return generate_latest(registry).decode()


def samples(exposed: str) -> dict[str, set[str]]:
    """The names of samples, with their labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exposed):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def queries() -> Iterator[str]:
    """All queries of the dashboard and the alerts."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]
    for query in re.findall(r"expr: (.*?)\n +(?:for|labels):", ALERTS.read_text(), re.DOTALL):
        yield query.removeprefix(">-")


async def test_every_query_asks_for_what_a_node_exposes(exposed: str) -> None:
    known = samples(exposed)
    asked = [name for query in queries() for name in re.findall(r"\boban_\w+", query)]
    assert len(asked) > 40
    assert {name for name in asked if name not in known} == set()


async def test_every_label_of_a_query_is_one_of_its_metric(exposed: str) -> None:
    known = samples(exposed)
    for query in queries():
        for name, labels in re.findall(r"\b(oban_\w+)\{([^}]*)\}", query):
            used = set(re.findall(r"(\w+)=", labels))
            assert used <= known[name], query


async def test_every_instrument_is_exposed_and_described(exposed: str) -> None:
    page = (DOCS / "observability.md").read_text()
    names = {family.name for family in text_string_to_metric_families(exposed)}
    for instrument in instruments.EVERY:
        assert instrument.prometheus_name in names
        assert f"`{instrument.prometheus_name}" in page


def test_each_panel_of_the_dashboard_has_its_own_id_and_place() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    assert all(panel["title"] and panel["description"] for panel in panels)


CONFIG = """
global: {scrape_interval: 200ms, scrape_timeout: 200ms}
scrape_configs:
  - job_name: oban
    static_configs: [{targets: ["127.0.0.1:%d"]}]
"""


@pytest.mark.skipif(server is None, reason="Prometheus is not installed")
async def test_prometheus_answers_the_query_of_every_panel(
    registry: CollectorRegistry, tmp_path: Path
) -> None:
    (oban,) = (one for one in instances.every() if isinstance(one, Oban))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    async with serving(oban, "127.0.0.1", 0, registry=registry) as port:
        (tmp_path / "prometheus.yml").write_text(CONFIG % port)
        process = await asyncio.create_subprocess_exec(
            str(server),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path}",
            f"--web.listen-address={address}",
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://{address}/api/v1") as client:
                await until(partial(_is_scraped, client))
                for panel in json.loads(DASHBOARD.read_text())["panels"]:
                    drawn = [await _drawn(client, target["expr"]) for target in panel["targets"]]
                    # No problem exists, so the panel of problems is empty.
                    assert any(drawn) or panel["title"] == "Problems", panel["title"]
        finally:
            process.kill()
            await process.wait()


async def _is_scraped(client: httpx.AsyncClient) -> bool:
    try:
        return await _drawn(client, "sum(count_over_time(oban_leader[1m])) > 3")
    except httpx.TransportError:
        return False


async def _drawn(client: httpx.AsyncClient, query: str) -> bool:
    """Whether a query returns data."""
    for variable, value in (("$__rate_interval", "1m"), ("$oban", ".*"), ("$queue", ".*")):
        query = query.replace(variable, value)
    response = await client.get("/query", params={"query": query})
    # Prometheus answers without JSON until it is ready.
    return response.status_code == 200 and bool(response.json()["data"]["result"])


def run_promtool(*arguments: str, **options: Any) -> None:
    assert promtool is not None
    done = subprocess.run(
        [promtool, *arguments], capture_output=True, text=True, timeout=60, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_the_alerts() -> None:
    run_promtool("check", "rules", str(ALERTS))


@needs_promtool
def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(ALERTS_TEST, tmp_path)
    run_promtool("test", "rules", ALERTS_TEST.name, cwd=tmp_path)


@needs_promtool
async def test_prometheus_takes_the_metrics(exposed: str) -> None:
    run_promtool("check", "metrics", input=exposed)


@needs_promtool
def test_prometheus_takes_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"q{n}", "expr": query.replace("$__rate_interval", "5m")}
        for n, query in enumerate(queries())
        if not query.startswith("label_values")
    ]
    file = tmp_path / "rules.yml"
    # JSON is also YAML.
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    run_promtool("check", "rules", str(file))
