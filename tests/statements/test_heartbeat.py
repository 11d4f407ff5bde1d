"""The rows of `oban_producers`."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla.models import ProducerRow
from oban_sqla.statements.heartbeat import beat, end
from tests.statements.conftest import Run

Sessions = async_sessionmaker[AsyncSession]

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def row(uuid: UUID, **fields: Any) -> dict[str, Any]:
    return {"uuid": str(uuid), "name": "Oban", "node": "n1", "queue": "q", "meta": {}, **fields}


async def found(sessions: Sessions) -> list[ProducerRow]:
    async with sessions() as session:
        return list(await session.scalars(select(ProducerRow).order_by(ProducerRow.queue)))


async def test_beats_write_rows_and_keep_them_alive(run: Run, sessions: Sessions) -> None:
    one, two = uuid4(), uuid4()
    await run(beat([row(one, queue="a"), row(two, queue="b", meta={"paused": False})], expiry=60.0))
    first = await found(sessions)
    assert [(p.uuid, p.name, p.node, p.queue) for p in first] == [
        (one, "Oban", "n1", "a"),
        (two, "Oban", "n1", "b"),
    ]
    assert first[0].started_at == first[0].updated_at
    await run(beat([row(one, queue="a"), row(two, queue="b", meta={"paused": True})], expiry=60.0))
    second = await found(sessions)
    assert [p.started_at for p in second] == [p.started_at for p in first]
    assert all(now.updated_at > then.updated_at for now, then in zip(second, first, strict=True))
    assert second[1].meta == {**first[1].meta, "paused": True}


async def test_the_end_deletes_rows(run: Run, sessions: Sessions) -> None:
    mine, other = uuid4(), uuid4()
    await run(beat([row(mine), row(other)], expiry=60.0))
    await run(end([mine, uuid4()]))
    assert [p.uuid for p in await found(sessions)] == [other]


async def test_a_lost_row_keeps_its_start(run: Run, sessions: Sessions) -> None:
    lost = uuid4()
    started_at = NOW - timedelta(hours=1)
    (written,) = await run(
        beat([row(lost, started_at=started_at.isoformat())], expiry=60.0, now=NOW)
    )
    assert (written.uuid, written.started_at) == (lost, started_at)
    (producer,) = await found(sessions)
    assert (producer.started_at, producer.updated_at) == (started_at, NOW)


async def test_a_beat_without_producers_writes_nothing(run: Run, sessions: Sessions) -> None:
    assert await run(beat([], expiry=60.0)) == []
    assert await found(sessions) == []


@pytest.mark.parametrize(("silence", "unbroken"), [(22.5, True), (22.6, False)])
async def test_a_row_tells_since_when_it_beats_without_a_break(
    run: Run, sessions: Sessions, silence: float, unbroken: bool
) -> None:
    uuid = uuid4()
    for seconds in (0.0, 10.0, 10.0 + silence):
        await run(beat([row(uuid)], expiry=60.0, now=NOW + timedelta(seconds=seconds)))
    (producer,) = await found(sessions)
    since = NOW.timestamp() + (0 if unbroken else 10 + silence)
    assert producer.meta == {"expiry": 60.0, "unbroken_since": since}
