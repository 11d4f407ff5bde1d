"""Wake-ups between the threads, and the event loops, of one process."""

import asyncio
import multiprocessing
import os
import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy import make_url

from oban_sqla import wakeups
from oban_sqla.wakeups import Address, Wakeup

HERE = Address("localhost", 5432, "app")
WAKEUP = Wakeup(frozenset({"default"}))


async def passed() -> None:
    """Let the event loop deliver earlier wake-ups."""
    fence = asyncio.Event()
    asyncio.get_running_loop().call_soon_threadsafe(fence.set)
    await fence.wait()


async def test_a_subscriber_is_woken_on_its_loop_until_it_unsubscribes() -> None:
    woken: list[tuple[threading.Thread, Wakeup]] = []
    unsubscribe = wakeups.subscribe(
        HERE, "public", lambda wakeup: woken.append((threading.current_thread(), wakeup))
    )
    await asyncio.to_thread(wakeups.publish, HERE, "public", WAKEUP)
    await passed()
    assert woken == [(threading.main_thread(), WAKEUP)]
    unsubscribe()
    unsubscribe()
    wakeups.publish(HERE, "public", WAKEUP)
    await passed()
    assert len(woken) == 1


async def test_a_subscriber_on_the_publishing_loop_is_woken_at_once() -> None:
    woken: list[Wakeup] = []
    unsubscribe = wakeups.subscribe(HERE, "public", woken.append)
    wakeups.publish(HERE, "public", WAKEUP)
    assert woken == [WAKEUP]
    unsubscribe()


@pytest.mark.parametrize(
    ("address", "prefix", "count"),
    [
        (HERE, "public", 1),
        (HERE, None, 1),
        (HERE, "other", 0),
        (HERE._replace(host="elsewhere"), "public", 0),
        (HERE._replace(name="other"), None, 0),
    ],
)
async def test_only_subscribers_of_the_same_tables_are_woken(
    address: Address, prefix: str | None, count: int
) -> None:
    woken: list[Wakeup] = []
    unsubscribe = wakeups.subscribe(HERE, "public", woken.append)
    wakeups.publish(address, prefix, WAKEUP)
    await passed()
    unsubscribe()
    assert woken == [WAKEUP] * count


async def test_the_same_callable_may_subscribe_twice() -> None:
    woken: list[Wakeup] = []
    first = wakeups.subscribe(HERE, "public", woken.append)
    second = wakeups.subscribe(HERE, "public", woken.append)
    first()
    wakeups.publish(HERE, "public", WAKEUP)
    await passed()
    second()
    assert woken == [WAKEUP]


async def test_a_loop_that_was_closed_is_forgotten() -> None:
    def subscribe_and_die() -> None:
        async def subscribe() -> None:
            wakeups.subscribe(HERE, "public", lambda wakeup: None)

        asyncio.run(subscribe())

    await asyncio.to_thread(subscribe_and_die)
    woken: list[Wakeup] = []
    unsubscribe = wakeups.subscribe(HERE, "public", woken.append)
    for _ in range(2):
        wakeups.publish(HERE, "public", WAKEUP)
    await passed()
    assert woken == [WAKEUP] * 2
    unsubscribe()
    assert wakeups._subscriptions == ()


async def test_many_threads_publish_while_subscribers_come_and_go() -> None:
    woken: list[Wakeup] = []
    keep = wakeups.subscribe(HERE, "public", woken.append)
    running = threading.Barrier(9)

    def publish() -> None:
        running.wait()
        for _ in range(200):
            wakeups.publish(HERE, "public", WAKEUP)

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    running.wait()
    for _ in range(500):
        wakeups.subscribe(HERE, "public", lambda wakeup: None)()
    for thread in threads:
        thread.join()
    await passed()
    keep()
    assert len(woken) == 8 * 200
    assert wakeups._subscriptions == ()


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_forked_child_wakes_no_subscriber() -> None:
    # A thread that the child does not have may hold the lock.
    unsubscribe = wakeups.subscribe(HERE, "public", lambda wakeup: None)
    with wakeups._lock:
        child = multiprocessing.get_context("fork").Process(target=_in_child)
        child.start()
    await asyncio.to_thread(child.join, 20.0)
    unsubscribe()
    assert child.exitcode == 0


def _in_child() -> None:
    assert wakeups._subscriptions == ()
    wakeups.publish(HERE, "public", WAKEUP)
    assert wakeups._lock.acquire(timeout=1.0)


def test_wakeups_are_combined() -> None:
    soon, later = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    total = Wakeup(frozenset("a"), later) | Wakeup(frozenset("b"), soon)
    assert total == Wakeup(frozenset("ab"), soon)
    assert total | Wakeup(queues=None) == Wakeup(queues=None)
    assert not Wakeup()
    assert all((total, Wakeup(queues=None), Wakeup(due_at=soon)))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://u:p@db:5433/app", Address("db", 5433, "app")),
        ("postgresql+asyncpg://db/app", Address("db", None, "app")),
        ("postgresql+psycopg:///app?host=/run/postgresql", Address("/run/postgresql", None, "app")),
        ("postgresql://", Address(None, None, None)),
    ],
)
def test_an_address_has_neither_the_driver_nor_the_user(url: str, address: Address) -> None:
    assert Address.of(make_url(url)) == address
