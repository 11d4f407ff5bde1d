"""Jobs that a node does not expect: limited ones in any queue, and jobs inserted by other programs.

The node finds out that a queue has limited jobs when it claims the first one.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, JobState, Limit, Oban, Rate
from tests.conftest import Add, StartOban
from tests.limits.workers import Holding
from tests.listening import hear
from tests.runtime.conftest import until

NEVER: dict[str, Any] = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


class One(Holding, queue="found.declared", limit=Limit(1)):
    """A worker with one job at once."""


class Rated(Holding, queue="found.declared", rate=Rate(2, per=3600, name="found.rate")):
    """A worker with two starts in an hour."""


class Limited(Holding, queue="found.declared", limit=Limit(2, name="found.service")):
    """A worker with two jobs at once."""


class AlsoRated(Holding, queue="found.declared", rate=Rate(1, per=3600, name="found.service")):
    """A worker with one start in an hour, by a rate that has the name of a limit."""


class Free(Holding, queue="found.declared"):
    """A worker without a limit."""


async def test_no_job_starts_beyond_a_limit_that_was_found(start: StartOban, add: Add) -> None:
    """Two nodes claim the first jobs as if they had no limits, and start none of them."""
    await add(*(One.new(queue="found") for _ in range(30)))
    await start(queues={"found": 10}, node="one", **NEVER)
    await start(queues={"found": 10}, node="two", **NEVER)
    await Holding.begin(1)
    Holding.release_all()
    await Holding.begin(30)
    assert Holding.most == 1


async def test_jobs_that_go_back_leave_the_permits_unchanged(
    start: StartOban, add: Add, client: Oban
) -> None:
    """Their starts were not counted, so the starts of other jobs are not taken back."""
    rate = client.rate("found.rate")
    await rate.acquire()
    await add(*(Rated.new(queue="found") for _ in range(5)))
    oban = await start(queues={"found": 10}, **NEVER)
    with hear(oban, "claim_stop") as claims:
        await Holding.begin(1)
        await until(lambda: claims.events)
    assert await rate.available() == 0
    assert len(Holding.begun) == 1


async def test_a_limit_and_a_rate_of_one_name_count_apart(
    start: StartOban, add: Add, client: Oban
) -> None:
    workers = (Limited, AlsoRated, AlsoRated, Limited)
    first, rated, _, second = await add(*(worker.new(queue="found") for worker in workers))
    await start(queues={"found": 10}, **NEVER)
    assert {*await Holding.begin(3)} == {first, rated, second}
    assert await client.rate("found.service").available() == 0
    (last,) = await add(Free.new(queue="found"))
    assert (await Holding.begin(4))[3] == last


async def test_limits_of_another_kind_behind_the_same_key_count(
    start: StartOban, add: Add, client: Oban
) -> None:
    """Another program may give any keys."""
    made = [worker.new(queue="found") for worker in (Limited, AlsoRated, AlsoRated)]
    for job in made:
        job.meta = {**job.meta, "partition_key": "found.service"}
    limited, rated, _ = await add(*made)
    await start(queues={"found": 10}, **NEVER)
    assert await Holding.begin(1) == [limited]
    Holding.release_all()
    assert await Holding.begin(2) == [limited, rated]
    assert await client.rate("found.service").available() == 0
    (last,) = await add(Free.new(queue="found"))
    assert await Holding.begin(3) == [limited, rated, last]


async def test_the_first_job_with_a_rate_counts(start: StartOban, add: Add, client: Oban) -> None:
    """A claim in a queue with limits only claims no job with a rate."""
    await start(queues={"found": {"limit": 10, "global_limit": 10}}, **NEVER)
    await add(Limited.new(queue="found"))
    await Holding.begin(1)
    first, *_ = await add(*(AlsoRated.new(queue="found") for _ in range(3)))
    assert (await Holding.begin(2))[1] == first
    assert await client.rate("found.service").available() == 0
    (last,) = await add(Free.new(queue="found"))
    assert (await Holding.begin(3))[2] == last


BY_KEY = {"allowed": 1, "partition": {"fields": ["args"], "keys": ["key"]}}


@pytest.mark.parametrize("limits", [{}, {"global_limit": BY_KEY}])
async def test_a_job_of_a_long_transaction_does_not_wait_for_a_poll(
    start: StartOban, add: Add, limits: dict[str, Any]
) -> None:
    """It is due before the jobs that the last claim has seen, and its news comes once."""
    await add(One.new())
    await start(queues={"found.declared": {"limit": 10, **limits}}, **NEVER)
    await Holding.begin(1)
    (next_one,) = await add(Free.new({"key": 1}))
    assert (await Holding.begin(2))[1] == next_one
    late = Free.new({"key": 2})
    late.scheduled_at = datetime.now(UTC) - timedelta(seconds=10)
    (id,) = await add(late)
    assert (await Holding.begin(3))[2] == id


@pytest.mark.parametrize("priority", [10, 32767])
async def test_a_priority_out_of_our_range_is_claimed(
    start: StartOban, add: Add, engine: AsyncEngine, prefix: str, priority: int
) -> None:
    await add(*(One.new() for _ in range(2)))
    row = {
        "worker": Free.new().worker,
        "queue": "found.declared",
        "state": JobState.AVAILABLE,
        "priority": priority,
    }
    options = {"schema_translate_map": {None: prefix}}
    async with engine.begin() as connection:
        await connection.execution_options(**options)
        await connection.execute(insert(Job).values([row, row]))
    await start(queues={"found.declared": 10}, **NEVER)
    # One job with the limit, and both others.
    await Holding.begin(3)
    Holding.release_all()
    await Holding.begin(4)
