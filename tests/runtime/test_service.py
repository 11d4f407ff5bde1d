"""`Service`, the loop of every service, from start to stop."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from oban_sqla.events import ServiceCancelled, ServiceFailed, ServiceRestored
from oban_sqla.runtime import service as service_module
from oban_sqla.runtime.service import Service
from tests.conftest import Tune
from tests.listening import PATIENCE, timers

Pass = Callable[[], Awaitable[float]]


class Counter(Service):
    """A service that counts its passes, each of which calls a function of the test."""

    name = "counter"

    def __init__(self, make_pass: Pass | None = None) -> None:
        self.emitted: list[tuple[str, Any]] = []
        super().__init__(lambda name, data: self.emitted.append((name, data)))
        self.passes = 0
        self.closed = 0
        self._make_pass = make_pass
        self._changed = asyncio.Event()

    async def run_once(self) -> float:
        self.passes += 1
        self._changed.set()
        return await self._make_pass() if self._make_pass else math.inf

    async def close(self) -> None:
        self.closed += 1

    async def passed(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.passes < count:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def quick(tune: Tune) -> None:
    """Shorten the delays of retries and of unwinding."""
    tune(service_module, FIRST_RETRY=0.001, LONGEST_RETRY=0.002, UNWINDING=0.01)


async def stress(service: Service) -> None:
    """Start and stop the service from ten tasks at once, fifty times each. Then it must stand
    still.
    """

    async def toggle() -> None:
        for _ in range(50):
            await service.start()
            if random.random() < 0.5:
                await asyncio.sleep(0)
            service.wake()
            await service.stop()

    before = asyncio.all_tasks()
    await asyncio.gather(*(toggle() for _ in range(10)))
    await service.stop()
    assert asyncio.all_tasks() == before


async def test_a_service_may_delay_its_first_pass(tune: Tune) -> None:
    """A wake-up does not make the first pass earlier, and a stop does not wait for it."""
    tune(Counter, begins_in=0.05)
    service = Counter()
    started = asyncio.get_running_loop().time()
    await service.start()
    service.wake()
    await service.passed(1)
    assert asyncio.get_running_loop().time() - started >= 0.05
    await service.stop()
    tune(Counter, begins_in=3600.0)
    await service.start()
    await asyncio.sleep(0)
    service.wake()
    async with asyncio.timeout(PATIENCE):
        await service.stop()
    assert service.passes == 1


async def test_a_service_survives_any_order_of_starts_and_stops() -> None:
    service = Counter()
    await stress(service)
    assert service.emitted == []


async def test_a_failing_service_survives_any_order_of_starts_and_stops(quick: None) -> None:
    async def fail() -> float:
        raise ConnectionError

    service = Counter(fail)
    await stress(service)
    assert {name for name, _ in service.emitted} <= {"service_failed"}


async def test_a_stop_before_the_start_and_a_second_stop_do_nothing() -> None:
    service = Counter()
    await service.stop()
    await service.start()
    await asyncio.gather(service.stop(), service.stop())
    await service.stop()
    assert service.closed == 4
    assert service.emitted == []


async def test_a_service_starts_again_after_a_stop() -> None:
    service = Counter()
    for count in (1, 2):
        await service.start()
        await service.passed(count)
        await service.stop()


async def test_a_start_while_it_runs_does_nothing() -> None:
    service = Counter()
    await service.start()
    await service.start()
    await service.passed(1)
    await service.stop()
    assert service.passes == 1


async def test_a_stop_waits_for_the_current_pass() -> None:
    ended = asyncio.Event()

    async def make_pass() -> float:
        await stopping.wait()
        ended.set()
        return math.inf

    service, stopping = Counter(make_pass), asyncio.Event()
    await service.start()
    await service.passed(1)
    stop = asyncio.create_task(service.stop())
    await asyncio.sleep(0)
    stopping.set()
    await stop
    assert ended.is_set()
    assert service.emitted == []


async def test_a_service_that_does_not_stop_is_named_and_cancelled() -> None:
    async def hang() -> float:
        await asyncio.Event().wait()
        return math.inf

    service = Counter(hang)
    await service.start()
    await service.passed(1)
    await service.stop(grace=0.01)
    assert service.emitted == [("service_cancelled", ServiceCancelled("counter", 0.01))]
    assert service.closed == 1


async def test_a_service_that_ignores_a_cancellation_is_cancelled_again(
    quick: None,
) -> None:
    async def swallow() -> float:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()
        return math.inf

    service = Counter(swallow)
    await service.start()
    await service.passed(1)
    before = asyncio.all_tasks()
    await service.stop(grace=0)
    assert len(asyncio.all_tasks()) == len(before) - 1


async def test_a_cancelled_stop_can_be_repeated() -> None:
    async def make_pass() -> float:
        await released.wait()
        return math.inf

    released = asyncio.Event()
    service = Counter(make_pass)
    await service.start()
    await service.passed(1)
    stop = asyncio.create_task(service.stop())
    await asyncio.sleep(0)
    stop.cancel()
    await asyncio.wait([stop])
    assert service.closed == 0
    released.set()
    await service.stop()
    assert service.closed == 1


async def test_a_wake_up_makes_a_pass() -> None:
    service = Counter()
    await service.start()
    for count in range(1, 5):
        await service.passed(count)
        service.wake()
    await service.passed(5)
    await service.stop()


async def test_a_wake_up_during_a_pass_is_not_lost() -> None:
    async def make_pass() -> float:
        if service.passes == 1:
            service.wake()
            await asyncio.sleep(0)
        return math.inf

    service = Counter(make_pass)
    await service.start()
    await service.passed(2)
    await service.stop()


async def test_an_alarm_that_rings_during_a_pass_is_not_lost() -> None:
    async def make_pass() -> float:
        if service.passes == 1:
            service.wake_in(0)
            await timers()
        return math.inf

    service = Counter(make_pass)
    await service.start()
    await service.passed(2)
    await service.stop()


async def test_the_earliest_alarm_holds() -> None:
    async def make_pass() -> float:
        return 3600.0

    service = Counter(make_pass)
    await service.start()
    await service.passed(1)
    service.wake_in(0.01)
    service.wake_in(1800)
    await service.passed(2)
    await service.stop()


async def test_passes_without_a_delay_let_other_tasks_run() -> None:
    async def make_pass() -> float:
        return 0.0

    service = Counter(make_pass)
    await service.start()
    await service.passed(3)
    await service.stop()


async def test_a_stopped_service_has_no_alarm() -> None:
    service = Counter()
    service.wake_in(0)
    await service.start()
    await service.passed(1)
    await service.stop()
    service.wake_in(0)
    service.wake()
    await timers()
    assert service.passes == 1


async def test_an_outage_and_its_end_are_each_reported_once(quick: None) -> None:
    error = ConnectionError("gone")

    async def make_pass() -> float:
        if service.passes <= 4 or service.passes == 6:
            raise error
        return 0.0 if service.passes == 5 else math.inf

    service = Counter(make_pass)
    await service.start()
    await service.passed(7)
    await service.stop()
    failed = ("service_failed", ServiceFailed("counter", error))
    restored = ("service_restored", ServiceRestored("counter"))
    assert service.emitted == [failed, restored] * 2


async def test_wake_ups_do_not_hammer_a_server_that_is_down() -> None:
    async def fail() -> float:
        raise ConnectionError

    service = Counter(fail)
    await service.start()
    await service.passed(1)
    for _ in range(100):
        service.wake()
        await asyncio.sleep(0)
    assert service.passes == 1
    await service.stop()


async def test_a_stop_does_not_wait_for_the_next_try(tune: Tune) -> None:
    tune(service_module, FIRST_RETRY=3600.0, LONGEST_RETRY=3600.0)

    async def fail() -> float:
        raise ConnectionError

    service = Counter(fail)
    await service.start()
    await service.passed(1)
    async with asyncio.timeout(PATIENCE):
        await service.stop(grace=3600.0)
