"""The endpoint of a node: metrics, health and readiness over HTTP."""

import asyncio
import socket
import threading
import time
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, Oban, Worker
from oban_sqla.contrib import check_ups, endpoint, prometheus
from oban_sqla.contrib.check_ups import CheckUps
from oban_sqla.contrib.endpoint import serving
from tests.conftest import StartOban, Tune
from tests.listening import hear
from tests.proxy import Proxy
from tests.runtime.conftest import until


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


async def get(port: int, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        return await client.get(path, timeout=60)


async def ready(start: StartOban, engine: Any = None, **options: Any) -> Oban:
    """A node that listens."""
    oban = await start(engine, queues={"default": 5}, **options)
    await until(lambda: oban.vitals is not None and oban.vitals.listening is True)
    return oban


async def test_the_endpoint_serves_metrics(start: StartOban, registry: CollectorRegistry) -> None:
    prometheus.attach(registry)
    try:
        oban = await start(queues={"default": 5})
        async with serving(oban, "127.0.0.1", 0, registry=registry) as port:
            response = await get(port, "/metrics")
    finally:
        prometheus.detach()
    assert response.status_code == 200
    assert 'oban_queue_limit{oban="Oban",queue="default"} 5.0' in response.text


class Quick(Worker, name="tests.endpoint.Quick"):
    async def process(self, job: Job) -> None: ...


async def test_any_thread_may_ask_the_endpoint_while_jobs_run(start: StartOban) -> None:
    oban = await start(queues={"default": 20})
    ended = threading.Event()

    def look() -> int:
        looks = 0
        while not ended.is_set():
            assert oban.vitals is not None
            looks += 1
        return looks

    looking = asyncio.create_task(asyncio.to_thread(look))
    with hear(oban, "ack_stop") as acks:
        await oban.enqueue_many(Quick.new({"n": n}) for n in range(500))
        await acks.counted(500)
    ended.set()
    assert await looking > 100


async def test_a_node_that_works_is_healthy_and_ready(start: StartOban) -> None:
    oban = await ready(start)
    async with serving(oban, "127.0.0.1", 0) as port:
        for path in ("/health", "/ready"):
            response = await get(port, path)
            assert (response.status_code, response.json()) == (200, {"ok": True, "reasons": []})
        assert (await get(port, "/elsewhere")).status_code == 404


async def test_the_endpoint_serves_ipv6(start: StartOban) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    oban = await start(queues={"default": 5})
    async with serving(oban, "::1", 0) as port, httpx.AsyncClient() as client:
        assert (await client.get(f"http://[::1]:{port}/health")).status_code == 200


async def test_without_its_database_a_node_is_healthy_but_not_ready(
    start: StartOban,
    postgres_dsn: str,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
    tune: Tune,
) -> None:
    # On a busy machine the event loop itself may take long to answer.
    tune(endpoint, PATIENCE=20.0)
    async with Proxy(postgres_dsn) as proxy:
        oban = await ready(start, proxy.dsn, prefix=prefix)
        async with serving(oban, "127.0.0.1", 0) as port:
            await proxy.refuse()
            proxy.cut()
            response = await get(port, "/ready")
            assert response.status_code == 503
            assert any("database" in reason for reason in response.json()["reasons"])
            assert (await get(port, "/health")).status_code == 200
        await oban.stop()
    caplog.clear()


async def test_a_node_that_stopped_is_not_ready(start: StartOban) -> None:
    oban = await start(queues={"default": 5})
    async with serving(oban, "127.0.0.1", 0) as port:
        await oban.stop()
        response = await get(port, "/ready")
    assert response.json() == {"ok": False, "reasons": ["the node runs no queues"]}


async def test_an_event_loop_that_is_blocked_is_not_healthy(start: StartOban, tune: Tune) -> None:
    tune(endpoint, PATIENCE=0.01)
    oban = await start(queues={"default": 5})
    async with serving(oban, "127.0.0.1", 0) as port:

        def ask() -> httpx.Response:
            return httpx.get(f"http://127.0.0.1:{port}/health", timeout=30)

        asked = asyncio.create_task(asyncio.to_thread(ask))
        await asyncio.sleep(0)
        time.sleep(2)  # noqa: ASYNC251 - as a worker that blocks it
        response = await asked
    assert response.status_code == 503
    assert "a worker blocks it" in response.json()["reasons"][0]


async def test_an_address_in_use_is_reported(start: StartOban) -> None:
    oban = await start(queues={"default": 5})
    async with serving(oban, "127.0.0.1", 0) as port:
        with pytest.raises(OSError, match="in use"):
            async with serving(oban, "127.0.0.1", port):
                raise AssertionError


async def test_the_doctor_runs_on_the_leader(start: StartOban) -> None:
    with hear(Oban, "elect_stop") as elections, hear(Oban, "doctor_stop") as stops:
        oban = await start(queues={"default": 5})
        await elections.until(lambda events: any(one.leader for one in events))
        assert await CheckUps(oban).run_once() == check_ups.INTERVAL
    (stop,) = stops.events
    assert stop.problems["schema"] == 0
    assert "leader" in stop.problems


async def test_without_the_endpoint_the_doctor_does_not_run(engine: AsyncEngine) -> None:
    with hear(Oban, "doctor_stop") as stops:
        assert await CheckUps(Oban(engine)).run_once() == check_ups.IDLE_INTERVAL
    assert stops.events == []
