"""Orders to queues are stored, for nodes that start later, and for nodes that don't hear them."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban, Worker
from oban_sqla.models import ProducerRow, QueueOrder
from tests.conftest import StartOban
from tests.listening import hear
from tests.runtime.conftest import until
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]
Row = tuple[str, str, str]

POLLS: dict[str, Any] = {"notify": "poll", "poll_interval": 0.02}


class Quick(Worker, name="kept_orders.quick", queue="alpha"):
    async def process(self, job: Job) -> None: ...


async def kept(sessions: Sessions) -> list[Row]:
    async with sessions() as session:
        rows = await session.scalars(select(QueueOrder).order_by(QueueOrder.changed_at))
        return [(row.node, row.queue, row.value["action"]) for row in rows]


class TestRestart:
    async def test_a_paused_queue_stays_paused(
        self, start: StartOban, sessions: Sessions, client: Oban
    ) -> None:
        oban = await start(queues={"alpha": 1, "beta": 1})
        await oban.pause_queue("alpha")
        await oban.stop()
        job = await client.enqueue(Quick.new())
        with hear(Oban, "queue_paused") as paused, hear(Oban, "claim_stop") as claims:
            again = await start(queues={"alpha": 1, "beta": 1})
            await paused.wait()
            await client.enqueue(Quick.new(queue="beta"))
            await claims.until(lambda stops: any(stop.count for stop in stops))
        assert {stop.queue for stop in claims.events} == {"beta"}
        assert [info.paused for info in again.check_all_queues()] == [True, False]
        async with sessions() as session:
            assert (await session.get_one(Job, job.id)).state is JobState.AVAILABLE
        with hear(again, "job_stop") as stops:
            await client.resume_queue("alpha")
            await until(lambda: job.id in [stop.job.id for stop in stops.events])

    async def test_a_queue_that_was_resumed_meanwhile_is_not_paused(
        self, start: StartOban, client: Oban
    ) -> None:
        await client.pause_queue("alpha")
        await client.resume_all_queues()
        oban = await start(queues={"alpha": 1})
        assert not oban.check_queue("alpha").paused

    async def test_one_queue_is_resumed_after_all_were_paused(
        self, start: StartOban, client: Oban
    ) -> None:
        await client.pause_all_queues()
        await client.resume_queue("alpha")
        oban = await start(queues={"alpha": 1, "beta": 1})
        assert [info.paused for info in oban.check_all_queues()] == [False, True]

    async def test_a_queue_that_is_configured_as_paused_is_not_resumed_by_an_old_order(
        self, start: StartOban, client: Oban
    ) -> None:
        await client.pause_all_queues()
        await client.resume_all_queues()
        oban = await start(queues={"alpha": {"limit": 1, "paused": True}})
        assert oban.check_queue("alpha").paused

    async def test_a_node_ignores_orders_to_other_nodes_and_instances(
        self, start: StartOban, engine: AsyncEngine, prefix: str
    ) -> None:
        other = Oban(engine, prefix=prefix, name="other")
        await other.pause_all_queues()
        await other.pause_queue("alpha", node="two")
        one = await start(queues={"alpha": 1}, node="one")
        two = await start(queues={"alpha": 1}, node="two")
        assert [oban.check_queue("alpha").paused for oban in (one, two)] == [False, False]
        await one.pause_queue("alpha", node="two")
        await two.stop()
        two = await start(queues={"alpha": 1}, node="two")
        assert [oban.check_queue("alpha").paused for oban in (one, two)] == [False, True]

    async def test_limits_and_queues_come_from_the_configuration(
        self, start: StartOban, client: Oban
    ) -> None:
        await client.scale_queue(queue="alpha", limit=9)
        await client.start_queue(queue="beta", limit=1)
        oban = await start(queues={"alpha": 1})
        await services(oban).orders.run_once()
        assert [(info.queue, info.limit) for info in oban.check_all_queues()] == [("alpha", 1)]


class TestNodeWithoutNotifications:
    async def test_a_node_polls_for_orders(self, start: StartOban, client: Oban) -> None:
        oban = await start(queues={"alpha": 1}, **POLLS)
        with hear(oban, "queue_paused") as paused, hear(oban, "queue_resumed") as resumed:
            await client.pause_queue("*")
            await paused.wait()
            await client.resume_queue("alpha")
            await resumed.wait()
        await client.scale_queue(queue="alpha", limit=5)
        await until(lambda: oban.check_queue("alpha").limit == 5)
        await client.start_queue(queue="beta", limit=2, paused=True)
        await until(lambda: oban.check_queue("beta") is not None)
        await client.stop_queue("beta")
        await until(lambda: oban.check_queue("beta") is None)

    async def test_a_node_follows_an_order_once(
        self, start: StartOban, client: Oban, sessions: Sessions
    ) -> None:
        """Later changes on the node are kept."""
        oban = await start(queues={"alpha": 1}, **POLLS)
        with hear(oban, "queue_paused") as paused:
            await client.pause_queue("alpha")
            await paused.wait()
        services(oban).queues.resume_queue("alpha")
        await services(oban).orders.run_once()
        assert not oban.check_queue("alpha").paused


class TestStoredOrders:
    async def test_an_order_replaces_the_orders_that_it_covers(
        self, client: Oban, sessions: Sessions
    ) -> None:
        await client.pause_queue("alpha")
        await client.pause_queue("beta", node="n1")
        await client.scale_queue(queue="alpha", limit=2)
        await client.pause_queue("*", node="n1")
        assert await kept(sessions) == [
            ("*", "alpha", "pause"),
            ("*", "alpha", "scale"),
            ("n1", "*", "pause"),
        ]
        await client.resume_all_queues()
        assert await kept(sessions) == [("*", "alpha", "scale"), ("*", "*", "resume")]

    async def test_orders_that_cross_leave_all_nodes_as_the_last_one_says(
        self, start: StartOban, engine: AsyncEngine, prefix: str, sessions: Sessions
    ) -> None:
        listens = await start(queues={"alpha": 1, "beta": 1})
        polls = await start(queues={"alpha": 1, "beta": 1}, **POLLS)
        clients = [Oban(engine, prefix=prefix) for _ in range(4)]
        for _ in range(5):
            await asyncio.gather(
                *(client.pause_queue("alpha") for client in clients),
                *(client.resume_all_queues() for client in clients),
                *(client.pause_all_queues(node=listens.node) for client in clients),
            )
        await clients[0].pause_queue("beta")

        def settled() -> bool:
            return all(node.check_queue("beta").paused for node in (listens, polls))

        await until(settled)
        for node in (listens, polls):
            await services(node).orders.run_once()
        newest: dict[str, bool] = {}
        for node_name, queue, action in await kept(sessions):
            if node_name in ("*", listens.node):
                newest |= dict.fromkeys(
                    ("alpha", "beta") if queue == "*" else (queue,), action == "pause"
                )
        assert {info.queue: info.paused for info in listens.check_all_queues()} == newest


async def test_a_queue_shows_when_it_started(start: StartOban) -> None:
    oban = await start(queues={"alpha": 3})
    info = oban.check_queue("alpha")
    assert info.started_at is not None
    assert info.meta == {"local_limit": 3, "paused": False}


async def test_an_order_updates_the_row_of_the_producer_at_once(
    start: StartOban, client: Oban, sessions: Sessions
) -> None:
    """The others need not wait for the next heartbeat, a quarter of the expiry."""
    await start(queues={"alpha": 3})
    await client.pause_queue("alpha")
    await client.scale_queue(queue="alpha", limit=5)

    async def known() -> bool:
        async with sessions() as session:
            (meta,) = await session.scalars(select(ProducerRow.meta))
            return (meta["local_limit"], meta["paused"]) == (5, True)

    await until(known)


@pytest.fixture
def client(engine: AsyncEngine, prefix: str) -> Oban:
    return Oban(engine, prefix=prefix)
