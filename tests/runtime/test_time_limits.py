"""The deadline of a statement: one timer that cancels twice."""

import asyncio

import pytest

from oban_sqla.runtime import time_limits
from oban_sqla.runtime.time_limits import deadline
from tests.conftest import Tune

NEVER = 3600.0


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_a_block_in_time_leaves_no_timer() -> None:
    async with deadline(0.0):
        pass
    await asyncio.sleep(0.01)
    assert cancelling() == 0


async def test_a_block_that_takes_longer_is_cancelled() -> None:
    with pytest.raises(TimeoutError):
        async with deadline(0.0):
            await asyncio.sleep(NEVER)
    assert cancelling() == 0


async def test_a_block_that_survives_the_first_cancellation_gets_a_second_one(tune: Tune) -> None:
    tune(time_limits, CLOSING=0.01)
    cancellations = 0

    async def survive_the_first() -> None:
        nonlocal cancellations
        while cancellations < 2:
            try:
                await asyncio.sleep(NEVER)
            except asyncio.CancelledError:
                cancellations += 1
        raise asyncio.CancelledError

    with pytest.raises(TimeoutError):
        async with deadline(0.0):
            await survive_the_first()
    assert cancelling() == 0


async def test_errors_of_the_block_are_unchanged() -> None:
    with pytest.raises(LookupError):
        async with deadline(NEVER):
            raise LookupError


async def test_a_cancellation_by_another_is_no_timeout() -> None:
    async def wait() -> None:
        async with deadline(NEVER):
            await asyncio.sleep(NEVER)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_by_another_beside_the_timeout_is_no_timeout() -> None:
    async def wait() -> None:
        async with deadline(0.0):
            try:
                await asyncio.sleep(NEVER)
            finally:
                task.cancel()

    task = asyncio.create_task(wait())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1


async def test_the_inner_block_ends_first() -> None:
    async with deadline(NEVER):
        with pytest.raises(TimeoutError):
            async with deadline(0.0):
                await asyncio.sleep(NEVER)
        assert cancelling() == 0
