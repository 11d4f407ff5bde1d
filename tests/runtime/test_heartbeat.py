"""The heartbeat: the rows by which other nodes know that a producer is alive."""

from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Oban
from oban_sqla.models import Producer
from tests.conftest import StartOban
from tests.runtime.conftest import until

Sessions = async_sessionmaker[AsyncSession]


async def producers(sessions: Sessions) -> list[Producer]:
    async with sessions() as session:
        return list(await session.scalars(select(Producer).order_by(Producer.queue)))


async def test_a_row_for_each_queue_while_it_runs(sessions: Sessions) -> None:
    queues: dict[str, Any] = {"alpha": 2, "beta": {"limit": 3, "paused": True}}
    async with Oban(sessions, queues=queues, name="main", node="n1") as oban:
        assert oban._supervisor is not None
        alpha, beta = await producers(sessions)
        assert [alpha.uuid, beta.uuid] == [p.uuid for p in oban._supervisor.producers.values()]
    assert (alpha.name, alpha.node, alpha.queue) == ("main", "n1", "alpha")
    assert alpha.meta == {"local_limit": 2, "paused": False}
    assert beta.meta == {"local_limit": 3, "paused": True}
    assert await producers(sessions) == []


async def test_it_goes_on_beating(start: StartOban, sessions: Sessions) -> None:
    await start(queues={"alpha": 1}, heartbeat_expiry=0.08)
    (first,) = await producers(sessions)

    async def beaten() -> bool:
        (now,) = await producers(sessions)
        assert now.started_at == first.started_at
        return now.updated_at > first.updated_at

    await until(beaten)


async def test_rows_that_are_gone_are_written_anew(start: StartOban, sessions: Sessions) -> None:
    """The table is unlogged: a crash of the server empties it."""
    await start(queues={"alpha": 1}, heartbeat_expiry=0.08)
    (first,) = await producers(sessions)
    async with sessions.begin() as session:
        await session.execute(delete(Producer))

    async def restored() -> bool:
        return [p.uuid for p in await producers(sessions)] == [first.uuid]

    await until(restored)


async def test_a_restart_is_a_new_producer(sessions: Sessions) -> None:
    oban = Oban(sessions, queues={"alpha": 1})
    uuids = set()
    for _ in range(2):
        async with oban:
            uuids |= {producer.uuid for producer in await producers(sessions)}
    assert len(uuids) == 2
