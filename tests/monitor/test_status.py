"""The status: nodes, leaders, queues and counts, also from rows of other programs."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import insert, literal, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, SchemaMissingError
from oban_sqla.models import LeaderLease, ProducerRow
from oban_sqla.monitor.status import Count, status
from oban_sqla.runtime.database import Database
from tests.conftest import StartOban
from tests.factories import JobFactory
from tests.runtime.conftest import until
from tests.runtime.workers import Held

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def database(engine: AsyncEngine, prefix: str) -> Database:
    return Database(engine, prefix)


async def beats(sessions: Sessions, silent_for: float = 0, **values: Any) -> None:
    values.setdefault("meta", {"local_limit": 5, "paused": False})
    values["updated_at"] = datetime.now(UTC) - timedelta(seconds=silent_for)
    async with sessions.begin() as session:
        await session.execute(insert(ProducerRow).values({"uuid": uuid4(), **values}))


async def test_the_status_without_nodes_is_empty(database: Database, prefix: str) -> None:
    found = await status(database)
    assert (found.schema, found.nodes, found.leaders, found.queues) == (prefix, (), (), ())


async def test_the_status_names_missing_tables(engine: AsyncEngine) -> None:
    with pytest.raises(SchemaMissingError, match="oban-sqla schema upgrade"):
        await status(Database(engine, "no_such_schema"))


async def test_the_status_shows_a_running_node(database: Database, start: StartOban) -> None:
    oban = await start(queues={"held": 3, "idle": {"limit": 1, "paused": True}}, node="n1")
    await oban.enqueue(Held.new({}, queue="held"))
    await Held.begun()
    await until(lambda: oban.is_leader)
    found = await status(database)
    (node,) = found.nodes
    assert (node.instance, node.node, node.alive) == ("Oban", "n1", True)
    assert node.silent_for < 60
    assert [(q.queue, q.limit, q.paused, q.running) for q in node.queues] == [
        ("held", 3, False, 1),
        ("idle", 1, True, 0),
    ]
    (lease,) = found.leaders
    assert (lease.instance, lease.node) == ("Oban", "n1")
    assert lease.expires_in > 0
    held, idle = found.queues
    assert (held.nodes, held.paused, held.limit, held.running) == (1, 0, 3, 1)
    assert held.counts == {"executing": Count(1, estimated=False)}
    assert (idle.nodes, idle.paused, idle.counts) == (1, 1, {})
    Held.release()


async def test_the_status_adds_up_the_nodes_of_a_queue(
    database: Database, sessions: Sessions
) -> None:
    await beats(sessions, node="n1", queue="q")
    await beats(sessions, node="n2", queue="q", meta={"local_limit": 2, "paused": True})
    await beats(sessions, node="dead", queue="q", silent_for=61)
    found = await status(database)
    assert {node.node: node.alive for node in found.nodes} == {
        "n1": True,
        "n2": True,
        "dead": False,
    }
    (queue,) = found.queues
    assert (queue.nodes, queue.paused, queue.limit) == (2, 1, 7)


async def test_a_node_expires_as_its_row_says(database: Database, sessions: Sessions) -> None:
    for node, expiry in (("short", 5), ("long", 600), ("odd", -1), ("none", None)):
        await beats(sessions, node=node, queue="q", silent_for=30, meta={"expiry": expiry})
    found = await status(database)
    assert {node.node for node in found.nodes if not node.alive} == {"short"}


@pytest.mark.parametrize("meta", [[], 1, None, "x", {"local_limit": "5", "paused": 1}])
async def test_an_invalid_meta_of_a_producer_is_ignored(
    database: Database, sessions: Sessions, meta: object
) -> None:
    await beats(sessions, node="n", queue="q")
    async with sessions.begin() as session:
        await session.execute(
            update(ProducerRow).values(meta=literal(meta, JSONB(none_as_null=False)))
        )
    ((running,),) = [node.queues for node in (await status(database)).nodes]
    assert (running.limit, running.paused) == (None, False)


async def test_the_status_shows_queues_that_no_node_runs(
    database: Database, sessions: Sessions
) -> None:
    async with sessions.begin() as session:
        session.add(JobFactory(queue="lonely"))
        session.add_all(JobFactory(queue="done", completed=True) for _ in range(3))
    done, lonely = (await status(database, exact=2)).queues
    assert (lonely.queue, lonely.nodes) == ("lonely", 0)
    assert lonely.oldest_available is not None
    assert done.counts["completed"].estimated
    assert done.oldest_available is None


async def test_an_expired_lease_is_no_leader(database: Database, sessions: Sessions) -> None:
    now = datetime.now(UTC)
    async with sessions.begin() as session:
        await session.execute(
            insert(LeaderLease).values(
                name="oban", node="theirs", elected_at=now, expires_at=now - timedelta(seconds=39)
            )
        )
        await session.execute(insert(Job).values(worker="w"))
    (lease,) = (await status(database)).leaders
    assert lease.node == "theirs"
    assert lease.expires_in < 0
