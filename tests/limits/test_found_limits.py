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
    """One job at once."""


class Rated(Holding, queue="found.declared", rate=Rate(2, per=3600, name="found.rate")):
    """Two starts in an hour."""


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


async def test_jobs_that_go_back_take_no_permits_and_give_none(
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
async def test_a_priority_that_only_other_programs_give(
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
