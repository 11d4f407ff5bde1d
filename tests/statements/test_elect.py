"""Elect: which node gets the lease of an instance, for how long, and how it gives the lease up."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla.models import LeaderLease
from oban_sqla.statements.elect import elect, resign
from oban_sqla.statements.presence import leaders
from tests.runtime.conftest import until
from tests.statements.conftest import Run

Sessions = async_sessionmaker[AsyncSession]

# The names of our nodes in the lease.
A, B = "a/0123456789ab", "b/0123456789ab"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


async def stand(
    run: Run, holder: str, now: datetime = NOW, instance: str = "Oban"
) -> tuple[bool, float | None]:
    (row,) = await run(elect(now=now), instance=instance, holder=holder, lease=20.0)
    return row.leader, row.expires_in


async def lease(sessions: Sessions) -> tuple[str, datetime, datetime]:
    async with sessions() as session:
        leader = (await session.scalars(select(LeaderLease))).one()
        return leader.node, leader.elected_at, leader.expires_at


async def test_the_first_node_gets_the_lease(run: Run, sessions: Sessions) -> None:
    assert await stand(run, A) == (True, None)
    assert await lease(sessions) == (A, NOW, at(20))


async def test_no_other_node_gets_the_lease_while_it_lasts(run: Run, sessions: Sessions) -> None:
    await stand(run, A)
    assert await stand(run, B, at(5)) == (False, 15.0)
    assert await stand(run, B, at(19.999)) == (False, 0.001)
    assert await lease(sessions) == (A, NOW, at(20))


async def test_the_holder_renews_the_lease(run: Run, sessions: Sessions) -> None:
    await stand(run, A)
    assert await stand(run, A, at(10)) == (True, 10.0)
    assert await lease(sessions) == (A, NOW, at(30))
    assert await stand(run, B, at(20)) == (False, 10.0)


async def test_another_node_takes_over_an_expired_lease(run: Run, sessions: Sessions) -> None:
    await stand(run, A)
    assert await stand(run, B, at(20)) == (True, 0.0)
    assert await lease(sessions) == (B, at(20), at(40))
    assert await stand(run, A, at(21)) == (False, 19.0)


@pytest.mark.parametrize(("back", "expected"), [(-39.9, False), (-40.1, True), (-86400, True)])
async def test_a_lease_from_before_the_clock_was_set_back_is_free(
    run: Run, sessions: Sessions, back: float, expected: bool
) -> None:
    """Its holder may have died, and no node would lead until the clock has passed its end."""
    await stand(run, A)
    assert (await stand(run, B, at(back)))[0] is expected
    assert (await lease(sessions))[0] == (B if expected else A)


async def test_the_holder_renews_its_lease_after_the_clock_was_set_back(
    run: Run, sessions: Sessions
) -> None:
    await stand(run, A)
    assert (await stand(run, A, at(-3600)))[0]
    assert (await lease(sessions))[2] == at(-3580)
    assert not (await stand(run, B, at(-3599)))[0]


@pytest.mark.parametrize("node", ["worker@host", "host/1.0", "a/0123456789AB", "0123456789ab"])
async def test_a_lease_of_another_oban_is_respected_for_longer(
    run: Run, sessions: Sessions, node: str
) -> None:
    """Oban for Python takes the lease for three seconds, and renews it every fifteen."""
    async with sessions.begin() as session:
        session.add(LeaderLease(name="Oban", node=node, elected_at=NOW, expires_at=at(3)))
    assert await stand(run, A, at(15)) == (False, 18.0)
    async with sessions.begin() as session:
        await session.execute(update(LeaderLease).values(expires_at=at(18)))
    assert await stand(run, A, at(33)) == (False, 15.0)
    (seen,) = await run(leaders(now=at(33)))
    assert seen.expires_in == 15.0
    assert await stand(run, A, at(48)) == (True, 0.0)
    assert await lease(sessions) == (A, at(48), at(68))


async def test_each_instance_has_a_lease_of_its_own(run: Run) -> None:
    assert await stand(run, A, instance="one") == (True, None)
    assert await stand(run, B, instance="two") == (True, None)


async def test_the_clock_of_the_database_decides(run: Run) -> None:
    (row,) = await run(elect(), instance="Oban", holder=A, lease=20.0)
    assert row.leader
    (row,) = await run(elect(), instance="Oban", holder=B, lease=20.0)
    assert not row.leader
    assert 0 < row.expires_in <= 20


async def test_one_of_two_concurrent_nodes_gets_the_lease(engine: AsyncEngine) -> None:
    """The second node waits for the transaction of the first, and finds the lease taken."""
    params = {"instance": "Oban", "lease": 20.0}
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = :pid")
    async with engine.connect() as first, engine.connect() as second:
        pid = await second.scalar(text("SELECT pg_backend_pid()"))
        await first.execute(elect(now=NOW), {**params, "holder": A})
        standing = asyncio.create_task(second.execute(elect(now=NOW), {**params, "holder": B}))

        async def is_waiting() -> bool:
            return bool(await first.scalar(waiting, {"pid": pid}))

        await until(is_waiting)
        await first.commit()
        row = (await standing).one()
        await second.commit()
    assert (row.leader, row.expires_in) == (False, None)


class TestResigning:
    async def test_a_resignation_frees_only_the_own_lease(
        self, run: Run, sessions: Sessions, prefix: str
    ) -> None:
        await stand(run, A)
        assert await run(resign(prefix=prefix), instance="Oban", holder=B) == []
        assert await run(resign(prefix=prefix), instance="other", holder=A) == []
        assert (await lease(sessions))[0] == A
        assert len(await run(resign(prefix=prefix), instance="Oban", holder=A)) == 1
        assert await stand(run, B, at(1)) == (True, None)

    async def test_the_resignation_is_notified_in_obans_form(
        self, run: Run, postgres_dsn: str, prefix: str
    ) -> None:
        async with await psycopg.AsyncConnection.connect(
            postgres_dsn, autocommit=True
        ) as listening:
            channel = sql.Identifier(f"{prefix}.oban_leader")
            await listening.execute(sql.SQL("LISTEN {}").format(channel))
            await stand(run, A)
            await run(resign(prefix=prefix), instance="Oban", holder=B)
            await run(resign(prefix=prefix), instance="Oban", holder=A)
            told: list[Any] = [
                json.loads(news.payload)
                async for news in listening.notifies(timeout=20.0, stop_after=1)
            ]
        assert told == [{"action": "resign", "node": A, "name": "Oban"}]
