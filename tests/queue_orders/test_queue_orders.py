"""Orders to queues, from this node and from other nodes."""

import asyncio
import base64
import gzip
import json
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban, QueueNotFoundError, Worker
from tests.conftest import StartOban
from tests.listening import hear
from tests.runtime.conftest import until
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]


class Counted(Worker, name="queue_orders.counted", queue="alpha"):
    async def process(self, job: Job) -> None: ...


class Held(Worker, name="queue_orders.held"):
    async def process(self, job: Job) -> None:
        await asyncio.Event().wait()


async def signal(engine: AsyncEngine, prefix: str, payload: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(select(func.pg_notify(f"{prefix}.oban_signal", payload)))


async def test_a_pause_holds_on_every_node_until_it_is_resumed(
    start: StartOban, engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    one = await start(queues={"alpha": 1}, node="one")
    two = await start(queues={"alpha": 1, "beta": 1}, node="two")
    client = Oban(engine, prefix=prefix)
    with hear(one, "queue_paused") as first, hear(two, "queue_paused") as second:
        await client.pause_queue("alpha")
        await first.wait()
        await second.wait()
    assert [info.paused for info in two.check_all_queues()] == [True, False]
    await client.enqueue(Counted.new())
    with hear(Oban, "job_stop") as stops, hear(two, "queue_resumed") as resumed:
        await one.resume_all_queues()
        await resumed.wait()
        await stops.wait()


async def test_a_queue_that_does_not_run_here_is_an_error(start: StartOban) -> None:
    oban = await start(queues={"alpha": 3}, node="one")
    assert oban.check_one_queue("alpha") == oban.check_queue("alpha")
    message = r"queue 'beta' does not run on node 'one', which runs alpha; check_queue\(\) returns"
    with pytest.raises(QueueNotFoundError, match=message):
        oban.check_one_queue("beta")
    assert oban.check_queue("beta") is None


async def test_an_order_to_one_node_is_for_that_node(start: StartOban) -> None:
    one = await start(queues={"alpha": 1}, node="one")
    two = await start(queues={"alpha": 1}, node="two")
    with hear(two, "queue_paused") as paused:
        await one.pause_all_queues(node="two")
        await paused.wait()
    assert [oban.check_queue("alpha").paused for oban in (one, two)] == [False, True]


async def test_a_queue_is_scaled_started_and_stopped(start: StartOban) -> None:
    oban = await start(queues={"alpha": 1})
    await oban.scale_queue(queue="alpha", limit=7)
    await oban.start_queue(queue="beta", limit=3, paused=True)
    await oban.stop_queue("gamma")
    infos = [(info.queue, info.limit, info.paused) for info in oban.check_all_queues()]
    assert infos == [("alpha", 7, False), ("beta", 3, True)]
    await oban.stop_queue("beta")
    assert oban.check_queue("beta") is None


@pytest.mark.parametrize("packed", [False, True])
async def test_orders_in_the_form_of_oban_py_are_followed(
    start: StartOban, engine: AsyncEngine, prefix: str, packed: bool
) -> None:
    oban = await start(queues={"alpha": 1})
    await until(lambda: services(oban).notifier.listening)
    for nonsense in ("[]", '{"action": "scale", "queue": "alpha", "limit": "9"}', '{"action": 5}'):
        await signal(engine, prefix, nonsense)
    payload = json.dumps({"action": "pause", "queue": "*", "ident": "any"})
    if packed:
        payload = base64.b64encode(gzip.compress(payload.encode())).decode()
    with hear(oban, "queue_paused") as paused:
        await signal(engine, prefix, payload)
        await paused.wait()


async def test_a_wrong_limit_is_refused(engine: AsyncEngine) -> None:
    with pytest.raises(ValueError, match="limit of queue 'alpha' must be"):
        await Oban(engine).scale_queue(queue="alpha", limit=0)


@pytest.mark.parametrize("queue", ["", " ", None, 5, ["alpha"], "a\0", Counted])
async def test_a_name_that_no_queue_has_is_refused(engine: AsyncEngine, queue: Any) -> None:
    oban = Oban(engine)
    for order in (oban.pause_queue, oban.resume_queue, oban.stop_queue):
        with pytest.raises((TypeError, ValueError), match="queue "):
            await order(queue)


@pytest.mark.parametrize("node", ["", 5])
async def test_a_name_that_no_node_has_is_refused(engine: AsyncEngine, node: Any) -> None:
    with pytest.raises(ValueError, match="node must be a name, not"):
        await Oban(engine).pause_queue("alpha", node=node)


async def test_only_pause_and_resume_apply_to_all_queues(engine: AsyncEngine) -> None:
    oban = Oban(engine)
    for order in (
        oban.scale_queue(queue="*", limit=1),
        oban.start_queue(queue="*", limit=1),
        oban.stop_queue("*"),
    ):
        with pytest.raises(ValueError, match=r"'\*' for all queues is only possible for pause"):
            await order


async def test_crossing_orders_to_start_and_stop_leave_no_queue(start: StartOban) -> None:
    """They are carried out one after the other, and no queue is left running."""
    oban = await start(queues={"alpha": 1})
    for _ in range(5):
        await asyncio.gather(
            *(oban.start_queue(queue="beta", limit=1) for _ in range(3)),
            *(oban.stop_queue("beta") for _ in range(3)),
        )
        await oban.stop_queue("beta")
        assert [info.queue for info in oban.check_all_queues()] == ["alpha"]


async def test_a_queue_starts_after_its_stop_was_cancelled(start: StartOban) -> None:
    """The cancelled stop is finished first: the job goes back, and begins again."""
    oban = await start(queues={"alpha": 1}, shutdown_grace_period=0.2)
    producer = services(oban).producers["alpha"]
    with hear(oban, "job_start") as starts:
        await oban.enqueue(Held.new(queue="alpha"))
        await starts.wait()
        stop = asyncio.create_task(services(oban).queues.stop_queue("alpha"))
        await until(lambda: producer.stopping)
        stop.cancel()
        await asyncio.wait([stop])
        await services(oban).queues.start_queue("alpha", 3)
        await starts.wait(2)
    info = oban.check_queue("alpha")
    assert info is not None
    assert (info.limit, info.uuid == producer.uuid) == (3, False)


async def test_a_queue_started_while_the_node_stops_stops_too(start: StartOban) -> None:
    oban = await start(queues={"alpha": 1})
    await asyncio.gather(oban.start_queue(queue="beta", limit=1), oban.stop())
    await asyncio.gather(oban.stop(), oban.start_queue(queue="beta", limit=1))
    assert oban.check_all_queues() == []


async def test_a_queue_may_be_stopped_while_the_node_stops(
    start: StartOban, sessions: Sessions
) -> None:
    """Its job is given back, like the jobs of other queues."""
    oban = await start(queues={"alpha": 1, "beta": 1}, shutdown_grace_period=0.2)
    with hear(oban, "job_start") as starts:
        await oban.enqueue_many(Held.new(queue=queue) for queue in ("alpha", "beta"))
        await starts.wait(2)
    await asyncio.gather(oban.stop_queue("alpha"), oban.stop())
    async with sessions() as session:
        jobs = (await session.scalars(select(Job))).all()
    assert [(job.state, job.attempt) for job in jobs] == [(JobState.AVAILABLE, 0)] * 2
