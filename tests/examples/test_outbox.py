"""The outbox, over HTTP at both ends."""

from collections.abc import Iterator

import httpx
import pytest

from tests.examples.conftest import Finished, Process, Spawn, client_of
from tests.examples.provider import Call, Provider

pytestmark = pytest.mark.examples


@pytest.fixture
def process(spawn: Spawn, database_url: str, provider: Provider) -> Process:
    return spawn(
        *("examples.outbox", "--port", "0", "--dsn", database_url, "--webhook", provider.url)
    )


@pytest.fixture
def orders(process: Process) -> Iterator[httpx.Client]:
    with client_of(process) as client:
        yield client


def place(orders: httpx.Client, quantity: int = 1) -> int:
    answer = orders.post("/orders", json={"quantity": quantity})
    assert answer.status_code == 201
    return int(answer.json())


def hear(provider: Provider, count: int, *, failing: bool = True) -> list[Call]:
    """Answer requests until this number has succeeded. The first request with each key fails."""
    heard: list[Call] = []
    failed: set[str] = set()
    while len(heard) < count:
        call = provider.call()
        key = call.headers["Idempotency-Key"]
        if failing and key not in failed:
            failed.add(key)
            call.answer(503)
        else:
            heard.append(call)
            call.answer(204)
    return heard


def test_every_change_arrives_although_half_of_the_calls_fail(
    orders: httpx.Client, provider: Provider, finished: Finished
) -> None:
    first, second = place(orders), place(orders, 3)
    assert {(call.json["id"], call.json["quantity"]) for call in hear(provider, 2)} == {
        (first, 1),
        (second, 3),
    }
    for order in (first, second):
        assert orders.put(f"/orders/{order}", json={"status": "paid"}).status_code == 204
    assert [call.json["status"] for call in hear(provider, 2)] == ["paid", "paid"]

    assert orders.post("/shipments").json() == 2
    assert {(call.json["id"], call.json["status"]) for call in hear(provider, 2)} == {
        (first, "shipped"),
        (second, "shipped"),
    }
    assert orders.delete(f"/orders/{first}").status_code == 204
    (call,) = hear(provider, 1)
    assert call.json == {"id": first, "status": "deleted"}
    for id in range(1, 8):
        finished(id)
    assert orders.get("/outbox").json() == {"completed": 7}


def test_a_rolled_back_change_is_not_sent(orders: httpx.Client, provider: Provider) -> None:
    assert orders.post("/orders", json={"quantity": 101}).status_code == 422
    assert orders.get("/outbox").json() == {}
    order = place(orders)
    (call,) = hear(provider, 1, failing=False)
    assert call.json["id"] == order


def test_a_committed_change_is_sent_after_a_crash(
    orders: httpx.Client,
    process: Process,
    spawn: Spawn,
    provider: Provider,
    database_url: str,
) -> None:
    order = place(orders)
    provider.call()
    process.kill()  # while the job waits for the answer
    restarted = spawn(
        *("examples.outbox", "--port", "0", "--dsn", database_url, "--webhook", provider.url)
    )
    with client_of(restarted) as orders:
        assert orders.put(f"/orders/{order}", json={"status": "paid"}).status_code == 204
        (call,) = hear(provider, 1)
        assert (call.json["id"], call.json["status"]) == (order, "paid")


def test_one_command_starts_the_example(spawn: Spawn) -> None:
    process = spawn("examples.outbox", "--port", "0", DATABASE_URL="")
    with client_of(process) as orders:
        place(orders)
        process.says("the partner fails")
        process.says("the partner has heard {'id': 1, 'status': 'placed', 'quantity': 1}")
    process.stop()
