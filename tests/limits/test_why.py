"""Why a job waits: one sentence for each reason."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import literal_column, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobNotFoundError, JobState, Limit, Oban, Rate
from oban_sqla.limits.rows import RateRow
from oban_sqla.models import ProducerRow
from tests.conftest import Add, StartOban
from tests.limits.workers import Holding
from tests.listening import hear
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]
NEVER: dict[str, Any] = {"poll_interval": 3600.0, "fallback_interval": 3600.0}
AT = r"\d\d:\d\d:\d\d UTC"


class ForAccount(Holding, name="why.account", limit=Limit(2, by="account")):
    """A worker with two jobs of an account at once."""


class OneAtATime(Holding, name="why.one", limit=Limit(1)):
    """A worker with one job at once."""


class Hourly(Holding, name="why.hourly", rate=Rate(1, per=3600, name="mailgun")):
    """A worker with one start in an hour."""


def says(sentence: str, pattern: str) -> None:
    assert re.fullmatch(pattern, sentence), sentence


async def test_why_names_the_limit_of_the_key(start: StartOban, client: Oban, add: Add) -> None:
    ids = await add(*(ForAccount.new({"account": 42}) for _ in range(3)))
    await start(queues={"limits": 10}, **NEVER)
    await Holding.begin(2)
    assert await client.why(ids[2]) == "2 of 2 executing for account 42 (jobs 1, 2)"


async def test_why_names_the_limit_of_the_worker(start: StartOban, client: Oban, add: Add) -> None:
    _, waiting = await add(OneAtATime.new(), OneAtATime.new())
    await start(queues={"limits": 10}, **NEVER)
    await Holding.begin(1)
    assert await client.why(waiting) == "1 of 1 executing for why.one (job 1)"


async def test_why_names_the_rate_of_the_worker(start: StartOban, client: Oban, add: Add) -> None:
    _, waiting = await add(Hourly.new(), Hourly.new())
    await start(queues={"limits": 10}, **NEVER)
    await Holding.begin(1)
    says(await client.why(waiting), rf"the next permit of mailgun is at (\S+ )?{AT}")


async def test_why_names_a_held_key(
    start: StartOban, client: Oban, add: Add, sessions: Sessions
) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    async with sessions.begin() as session:
        session.add(RateRow(rate="mailgun", held_until=until))
    (waiting,) = await add(Hourly.new())
    await start(queues={"limits": 10}, **NEVER)
    says(
        await client.why(waiting),
        rf"mailgun is held until (\S+ )?{AT}, since a job was rate limited",
    )


async def test_why_names_the_limit_of_the_queue(start: StartOban, client: Oban, add: Add) -> None:
    _, waiting = await add(Holding.new(), Holding.new())
    oban = await start(queues={"limits": {"limit": 5, "global_limit": 1}}, **NEVER)
    await Holding.begin(1)
    assert oban.check_queue("limits") is not None
    assert await client.why(waiting) == "1 of 1 executing in queue limits, on all nodes"


async def test_why_names_the_rate_of_the_queue(start: StartOban, client: Oban, add: Add) -> None:
    _, waiting = await add(Holding.new(), Holding.new())
    await start(queues={"limits": {"limit": 5, "rate_limit": Rate(1, per=3600)}}, **NEVER)
    await Holding.begin(1)
    says(await client.why(waiting), rf"the next permit of queue limits is at (\S+ )?{AT}")


async def test_why_names_the_slots_of_the_nodes(start: StartOban, client: Oban, add: Add) -> None:
    _, waiting = await add(Holding.new(), Holding.new())
    await start(queues={"limits": 1}, claim_ahead=0, **NEVER)
    await Holding.begin(1)
    assert await client.why(waiting) == (
        "all slots of queue limits are in use: 1 executing on 1 node"
    )


async def test_why_names_a_pause(start: StartOban, client: Oban, add: Add) -> None:
    (waiting,) = await add(Holding.new())
    oban = await start(queues={"limits": {"limit": 1, "paused": True}}, **NEVER)
    assert await client.why(waiting) == "queue limits is paused, as its nodes are configured"
    with hear(oban, "queue_resumed") as resumed:
        await client.resume_queue("limits")
        await resumed.wait()
    await Holding.begin(1)
    (another,) = await add(Holding.new())
    await client.pause_queue("limits", node=oban.node)
    await services(oban).orders.catch_up()
    says(await client.why(another), rf"queue limits is paused on node \S+ since {AT}")
    await client.pause_all_queues()
    says(await client.why(another), rf"queue limits is paused since {AT}")


async def test_why_names_a_queue_without_a_node(client: Oban, add: Add) -> None:
    (waiting,) = await add(Holding.new())
    assert await client.why(waiting) == "no node runs the queue limits"


async def idle_node(sessions: Sessions) -> None:
    """A node that is alive, and has not claimed yet."""
    meta = {"local_limit": 5, "paused": False}
    async with sessions.begin() as session:
        session.add(ProducerRow(uuid=uuid4(), name="Oban", node="n", queue="limits", meta=meta))


async def test_why_counts_the_jobs_before_it(client: Oban, add: Add, sessions: Sessions) -> None:
    await idle_node(sessions)
    first, second, third = await add(*(Holding.new() for _ in range(3)))
    assert await client.why(first) == "it is next: the next claim of its queue takes it"
    assert await client.why(second) == "1 job is before it in queue limits"
    assert await client.why(third) == "2 jobs are before it in queue limits"


async def test_why_says_when_the_job_is_due(client: Oban, add: Add) -> None:
    scheduled, retryable = await add(
        Holding.new(schedule_in=180.5),
        Job(
            "w",
            state=JobState.RETRYABLE,
            scheduled_at=datetime.now(UTC) + timedelta(hours=5),
        ),
    )
    assert await client.why(scheduled) == "it is due in 3 minutes"
    assert await client.why(retryable) == "it is due in 5 hours, since attempt 0 of 20 failed"


async def test_why_names_a_missing_stager(client: Oban, add: Add, sessions: Sessions) -> None:
    await idle_node(sessions)
    (due,) = await add(Holding.new(schedule_in=3600))
    async with sessions.begin() as session:
        past = datetime.now(UTC) - timedelta(seconds=5)
        await session.execute(update(Job).values(scheduled_at=past))
    assert await client.why(due) == "it is due, and the next pass of a stager makes it available"


async def test_why_explains_a_suspended_job(client: Oban, add: Add, sessions: Sessions) -> None:
    (alone,) = await add(Holding.new())
    async with sessions.begin() as session:
        await session.execute(update(Job).values(state=JobState.SUSPENDED))
    assert await client.why(alone) == (
        "it is suspended: nothing starts it before it is made available"
    )


async def test_why_explains_a_time_beyond_python(
    client: Oban, add: Add, sessions: Sessions
) -> None:
    (beyond,) = await add(Holding.new(schedule_in=60))
    async with sessions.begin() as session:
        await session.execute(
            update(Job).values(scheduled_at=literal_column("CAST('infinity' AS timestamp)"))
        )
    assert await client.why(beyond) == (
        "its scheduled_at is no time that Python can represent, so it can't run: correct it"
    )


async def test_why_explains_a_job_that_does_not_wait(
    start: StartOban, client: Oban, add: Add, sessions: Sessions
) -> None:
    (running,) = await add(Holding.new())
    oban = await start(queues={"limits": 1}, **NEVER)
    await Holding.begin(1)
    says(await client.why(running), rf"it is executing since {AT} on {re.escape(oban.node)}")
    with hear(oban, "ack_stop") as acks:
        Holding.release_all()
        await acks.counted(1)
    says(await client.why(running), rf"it was completed at {AT}")
    (cancelled,) = await add(Holding.new(schedule_in=60))
    await client.cancel_jobs(cancelled)
    says(await client.why(cancelled), rf"it was cancelled at {AT}")


async def test_a_missing_job_is_an_error(client: Oban, engine: AsyncEngine) -> None:
    with pytest.raises(JobNotFoundError, match="there is no job 7"):
        await client.why(7)
    with pytest.raises(ValueError, match="has no id"):
        await client.why(Holding.new())
