"""Permits of a rate, for code that is no job."""

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, Oban, Rate, Worker
from tests.conftest import Add, StartOban
from tests.limits.workers import Holding

NEVER: dict[str, Any] = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


class Calls(Holding, rate=Rate(3, per=3600, name="calls")):
    """Three starts in an hour."""


class Short(Worker, rate=Rate(2, per=0.3, name="short", burst=1)):
    async def process(self, job: Job) -> None: ...


class ByKey(Worker, name="named_rate.by_key", rate=Rate(2, per=3600, by="key")):
    async def process(self, job: Job) -> None: ...


async def test_jobs_and_other_code_share_permits(start: StartOban, client: Oban, add: Add) -> None:
    rate = client.rate("calls")
    assert await rate.available() == 3
    await rate.acquire(2)
    assert await rate.available() == 1
    await add(Calls.new(), Calls.new())
    await start(queues={"default": 5}, **NEVER)
    await Holding.begin(1)
    assert await rate.available() == 0
    with pytest.raises(TimeoutError, match=r"not 1 permits of rate 'calls' within 0.05 s"):
        await rate.acquire(timeout=0.05)
    await rate.reset()
    await Holding.begin(2)
    assert await rate.available() == 2


async def test_it_waits_for_the_next_permit(client: Oban) -> None:
    rate = client.rate("short")
    began = time.monotonic()
    await rate.acquire(3)
    assert time.monotonic() - began < 0.25
    await rate.acquire(2)
    assert 0.29 <= time.monotonic() - began < 1.0


async def test_many_callers_get_no_more_than_there_are(client: Oban) -> None:
    rate = client.rate("calls")
    results = await asyncio.gather(
        *(rate.acquire(timeout=0.5) for _ in range(10)), return_exceptions=True
    )
    assert sum(result is None for result in results) == 3


async def test_by_key(client: Oban) -> None:
    await client.rate("named_rate.by_key", key="a").acquire(2)
    assert await client.rate("named_rate.by_key", key="a").available() == 0
    assert await client.rate("named_rate.by_key", key="b").available() == 2


async def test_the_schema_is_found(engine: AsyncEngine) -> None:
    assert await Oban(engine).rate("calls").available() == 3


async def test_what_is_refused(client: Oban) -> None:
    with pytest.raises(LookupError, match="no imported worker has a rate of the name 'nope'"):
        client.rate("nope")
    with pytest.raises(TypeError, match="leave key out"):
        client.rate("calls", key=1)
    with pytest.raises(TypeError, match="no key to count by"):
        client.rate("named_rate.by_key", key=[1])
    with pytest.raises(ValueError, match=r"at most allowed \+ burst, 3"):
        await client.rate("calls").acquire(4)
