"""Free slots: the nodes that wait for a slot hear at once that another node does not use it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, JobState, Limit, Oban
from oban_sqla.config.queue_limits import GlobalLimit
from oban_sqla.config.queues import Queue
from oban_sqla.limits.limited_claim import TELL_INTERVAL, LimitedClaim
from oban_sqla.runtime.database import Database
from oban_sqla.statements.rescue import rescue
from tests.conftest import Add, StartOban
from tests.limits.workers import Holding
from tests.listening import hear
from tests.runtime.conftest import until

# Without a notification, a node finds a slot after half a minute.
SELDOM: dict[str, Any] = {"poll_interval": 30.0, "fallback_interval": 30.0}
# With a notification, that takes some milliseconds, or longer on a busy machine.
AT_ONCE = 10.0
ONE: dict[str, Any] = {"slots": {"limit": 5, "global_limit": 1}}


class Plain(Holding, queue="slots"):
    """A worker without a limit, in a queue that no limited worker uses."""


class Shared(Holding, queue="keyed", limit=Limit(1, name="free_slots.shared")):
    """A worker with one job at a time, in any queue."""


@pytest.fixture
async def freed(postgres_dsn: str, prefix: str) -> AsyncIterator[Any]:
    """A function that returns the notifications about free slots so far."""
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        received: list[psycopg.Notify] = []
        # Not `notifies()`: psycopg 3.2.1 does not yield news that came with an answer.
        connection.add_notify_handler(received.append)
        for channel in ("oban_freed", "fence"):
            await connection.execute(
                sql.SQL("LISTEN {}").format(sql.Identifier(f"{prefix}.{channel}"))
            )

        async def heard() -> list[dict[str, Any]]:
            # PostgreSQL sends the connection's own notification with the answer.
            await connection.execute("SELECT pg_notify(%s, '')", [f"{prefix}.fence"])
            # News of a later commit may follow it.
            fence = [one.channel for one in received].index(f"{prefix}.fence")
            news, received[: fence + 1] = received[:fence], []
            return [json.loads(one.payload) for one in news]

        yield heard


async def _begins_at_once(count: int) -> None:
    began = time.monotonic()
    await Holding.begin(count)
    assert time.monotonic() - began < AT_ONCE


async def _finds_no_slot(oban: Oban, add: Add, job: Job) -> None:
    """Add a job, and wait until the node has looked and started nothing."""
    with hear(oban, "claim_stop") as claims:
        await add(job)
        await claims.wait()
    assert claims.events[0].count == 0


async def _one_runs_and_two_waits(start: StartOban, add: Add) -> tuple[Oban, Oban, int]:
    one = await start(queues=ONE, node="one", **SELDOM)
    (first,) = await add(Plain.new())
    await Holding.begin(1)
    two = await start(queues=ONE, node="two", **SELDOM)
    await _finds_no_slot(two, add, Plain.new())
    return one, two, first


class TestAnotherNodeStartsTheNextJob:
    async def test_when_the_first_node_is_paused(self, start: StartOban, add: Add) -> None:
        one, two, first = await _one_runs_and_two_waits(start, add)
        await one.pause_queue(queue="slots", node="one")
        await until(lambda: one.check_one_queue("slots").paused)
        Holding.release(first)
        await _begins_at_once(2)
        assert two.check_one_queue("slots").running == Holding.begun[1:]

    async def test_when_the_first_node_stops(self, start: StartOban, add: Add) -> None:
        one, _, first = await _one_runs_and_two_waits(start, add)
        stop = asyncio.create_task(one.stop())
        await until(lambda: one.vitals.stopping)
        Holding.release(first)
        await _begins_at_once(2)
        Holding.release_all()
        await stop

    async def test_when_a_cancelled_job_ends(self, start: StartOban, add: Add) -> None:
        one, two, first = await _one_runs_and_two_waits(start, add)
        await one.pause_queue(queue="slots", node="one")
        await until(lambda: one.check_one_queue("slots").paused)
        await two.cancel_jobs(first)
        Holding.release(first)
        await _begins_at_once(2)

    async def test_when_the_first_node_has_no_slot_for_all(
        self, start: StartOban, add: Add, client: Oban
    ) -> None:
        queue = {"limit": 3, "global_limit": 3}
        one = await start(queues={"slots": queue}, node="one", **SELDOM)
        await add(*(Plain.new() for _ in range(5)))
        begun = list(await Holding.begin(3))
        two = await start(queues={"slots": queue}, node="two", **SELDOM)
        await _finds_no_slot(two, add, Plain.new())
        await client.scale_queue(queue="slots", limit=1, node="one")
        await until(lambda: one.check_one_queue("slots").limit == 1)
        Holding.release(*begun)
        await _begins_at_once(6)
        # The first node has a slot for one of them.
        assert len(two.check_one_queue("slots").running) >= 2

    async def test_when_the_slot_was_used_in_another_queue(
        self, start: StartOban, add: Add
    ) -> None:
        await start(queues={"other": 5}, node="one", **SELDOM)
        (first,) = await add(Shared.new(queue="other"))
        await Holding.begin(1)
        two = await start(queues={"keyed": 5}, node="two", **SELDOM)
        await _finds_no_slot(two, add, Shared.new())
        Holding.release(first)
        await _begins_at_once(2)

    async def test_when_an_executing_job_is_moved_to_another_queue(
        self, start: StartOban, add: Add, client: Oban
    ) -> None:
        (held,) = await add(Job("other", queue="slots", state=JobState.EXECUTING))
        two = await start(queues=ONE, **SELDOM)
        await _finds_no_slot(two, add, Plain.new())
        await client.update_jobs(held, {"queue": "elsewhere"})
        await _begins_at_once(1)

    @pytest.mark.parametrize("kind", ["queue", "key"])
    async def test_when_a_dead_node_leaves_a_job_without_attempts(
        self, start: StartOban, add: Add, engine: AsyncEngine, prefix: str, kind: str
    ) -> None:
        """The job is discarded, so no queue hears of new jobs."""
        worker = Shared if kind == "key" else Plain
        held = worker.new(max_attempts=1)
        held.state, held.attempt = JobState.EXECUTING, 1
        held.attempted_by = ["dead", "7c4f2a7e-0000-4000-8000-000000000000", "oban_sqla"]
        await add(held)
        two = await start(queues=ONE if kind == "queue" else {"keyed": 5}, **SELDOM)
        await _finds_no_slot(two, add, worker.new())
        params = {"batch": 10, "expiry": 60.0, "settled": 0.0, "rescue_after": 0.0}
        async with engine.begin() as connection:
            row = (await connection.execute(rescue(prefix=prefix), params)).one()
        assert row.discarded == [held.id]
        await _begins_at_once(1)
        Holding.release_all()


async def test_a_slot_that_is_freed_during_a_claim_is_looked_for_again(
    engine: AsyncEngine, prefix: str, add: Add
) -> None:
    """The claim may have counted before, so it does not prove that no slot is free."""
    await add(Job("other", queue="slots", state=JobState.EXECUTING), Plain.new())
    database = Database(engine, prefix)
    await database.verify()
    way = LimitedClaim(
        database, Queue("slots", 5, global_limit=GlobalLimit(1)), "one", lambda: 30.0
    )
    claim = await way.claim(5, str(uuid4()))
    assert (list(claim.jobs), claim.exhausted) == ([], True)
    claiming = asyncio.create_task(way.claim(5, str(uuid4())))
    await asyncio.sleep(0)
    way.frees(here=False)
    assert not (await claiming).exhausted


class TestWhatIsSent:
    async def test_a_queue_without_limits_sends_nothing(
        self, start: StartOban, add: Add, freed: Any
    ) -> None:
        Holding.release_all()
        oban = await start(queues={"slots": 5}, **SELDOM)
        with hear(oban, "ack_stop") as acks:
            await add(*(Plain.new() for _ in range(20)))
            await acks.counted(20)
        await oban.stop()
        assert await freed() == []

    async def test_a_node_that_uses_its_slots_sends_little(
        self, start: StartOban, add: Add, freed: Any
    ) -> None:
        Holding.release_all()
        oban = await start(queues=ONE, **SELDOM)
        with hear(oban, "ack_stop") as acks:
            await add(*(Plain.new() for _ in range(20)))
            await acks.counted(20)
        # On a busy machine an outcome may be written before the node has claimed again.
        assert len(await freed()) <= 2

    async def test_many_jobs_with_keys_send_few_notifications(
        self, start: StartOban, add: Add, freed: Any
    ) -> None:
        Holding.release_all()
        began = time.monotonic()
        oban = await start(queues={"keyed": 1}, **SELDOM)
        with hear(oban, "ack_stop") as acks:
            await add(*(Shared.new() for _ in range(50)))
            await acks.counted(50)
        await oban.stop()
        most = (time.monotonic() - began) / TELL_INTERVAL + 1
        assert 1 <= len(await freed()) <= most

    async def test_a_failed_notification_is_sent_again(
        self,
        start: StartOban,
        add: Add,
        freed: Any,
        engine: AsyncEngine,
        expect_errors: Any,
    ) -> None:
        await start(queues={"keyed": 5}, **SELDOM)
        (first,) = await add(Shared.new())
        await Holding.begin(1)
        failures = 0

        def fail(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
            nonlocal failures
            if "pg_notify" in statement and not failures:
                failures += 1
                raise OSError("cut")

        event.listen(engine.sync_engine, "before_cursor_execute", fail)
        Holding.release(first)
        await until(lambda: failures)
        await until(freed)
        event.remove(engine.sync_engine, "before_cursor_execute", fail)
