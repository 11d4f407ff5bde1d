"""The limit of a queue over all nodes: always used fully, never exceeded, even if nodes die."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import ConfigError, Job, JobState, Limit, Oban
from oban_sqla.models import QueueOrder
from tests.conftest import Add, StartOban
from tests.databases import async_engine
from tests.limits.workers import Holding
from tests.listening import hear
from tests.runtime.conftest import until
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]

# No test depends on a poll, unless it says so.
NEVER: dict[str, Any] = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


def limited(limit: int, global_limit: int, **options: Any) -> dict[str, Any]:
    return {"limits": {"limit": limit, "global_limit": global_limit, **options}}


async def states(sessions: Sessions) -> dict[JobState, int]:
    async with sessions() as session:
        query = select(Job.state, func.count()).group_by(Job.state)
        return {state: count for state, count in await session.execute(query)}


async def test_no_more_than_the_limit_run_over_two_nodes(
    start: StartOban, sessions: Sessions, add: Add
) -> None:
    one = await start(queues=limited(4, 5), node="one", **NEVER)
    two = await start(queues=limited(4, 5), node="two", **NEVER)
    await add(*(Holding.new() for _ in range(12)))
    await Holding.begin(5)
    running = Counter(info.node for info in (one.check_queue("limits"), two.check_queue("limits")))
    assert running == {"one": 1, "two": 1}
    assert await states(sessions) == {JobState.EXECUTING: 5, JobState.AVAILABLE: 7}
    Holding.release_all()
    await Holding.begin(12)
    await until(lambda: _is({JobState.COMPLETED: 12}, sessions))
    assert Holding.most == 5


async def _is(expected: dict[JobState, int], sessions: Sessions) -> bool:
    return await states(sessions) == expected


async def test_a_free_slot_is_used_at_once(start: StartOban, add: Add) -> None:
    """The slot is used when the outcome is written, not at a poll."""
    ids = await add(*(Holding.new() for _ in range(3)))
    await start(queues=limited(10, 1), **NEVER)
    for n in range(1, 4):
        assert await Holding.begin(n) == ids[:n]
        Holding.release(ids[n - 1])
    assert Holding.most == 1


async def test_better_priorities_go_first(start: StartOban, add: Add) -> None:
    late, soon = await add(Holding.new(priority=5), Holding.new(priority=0))
    await start(queues=limited(10, 1), **NEVER)
    await Holding.begin(1)
    Holding.release_all()
    assert await Holding.begin(2) == [soon, late]


async def test_jobs_of_other_queues_do_not_count(start: StartOban, add: Add) -> None:
    await add(*(Holding.new(queue=queue) for queue in ("limits", "limits", "other", "other")))
    await start(queues={**limited(10, 1), "other": 2}, **NEVER)
    await Holding.begin(3)
    Holding.release_all()
    await Holding.begin(4)
    assert Holding.most == 3


class One(Holding, name="global_limit.one", limit=Limit(1, by="account_id")):
    """A worker with one job of an account at once."""


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        *(("queue", end) for end in ("cancel", "delete", "give back")),
        *(("worker", "delete"), ("partition", "delete")),
    ],
)
async def test_a_slot_without_a_notification_is_found_at_a_poll(
    start: StartOban, sessions: Sessions, add: Add, end: str, kind: str
) -> None:
    """An executing row that is deleted frees its slot."""
    change: dict[str, Any] = {
        "cancel": update(Job).values(state=JobState.CANCELLED),
        "delete": delete(Job),
        "give back": update(Job).values(state=JobState.AVAILABLE, queue="nobody's"),
    }
    held = One.new({"account_id": 1})
    held.state = JobState.EXECUTING
    await add(held)
    by_account = {"fields": ["args"], "keys": ["account_id"]}
    of_key = {"allowed": 1, "partition": by_account}
    queues = {
        "queue": limited(10, 1),
        "worker": {"limits": 10},
        "partition": {"limits": {"limit": 10, "global_limit": of_key}},
    }
    await start(queues=queues[kind], poll_interval=0.02, fallback_interval=3600.0)
    await add((One if kind == "worker" else Holding).new({"account_id": 1}))
    async with sessions.begin() as session:
        await session.execute(change[end].where(Job.id == held.id))
    await Holding.begin(1)
    Holding.release_all()


async def test_a_row_that_is_locked_keeps_no_slot(
    start: StartOban, sessions: Sessions, add: Add
) -> None:
    first, second = await add(Holding.new(), Holding.new())
    async with sessions.begin() as session:
        await session.execute(select(Job).where(Job.id == first).with_for_update())
        await start(queues=limited(10, 1), **NEVER)
        assert await Holding.begin(1) == [second]
    Holding.release_all()


async def test_asyncpg_obeys_the_limit(
    postgres_dsn: str, prefix: str, start: StartOban, sessions: Sessions, add: Add
) -> None:
    pytest.importorskip("asyncpg")
    engine = async_engine(postgres_dsn, prefix, "asyncpg")
    await add(*(Holding.new() for _ in range(4)))
    oban = await start(engine, queues=limited(10, 2), **NEVER)
    await Holding.begin(2)
    assert await states(sessions) == {JobState.EXECUTING: 2, JobState.AVAILABLE: 2}
    Holding.release_all()
    await Holding.begin(4)
    await oban.stop()
    await engine.dispose()
    assert Holding.most == 2


class TestOrders:
    async def test_an_order_raises_and_lowers_the_limit(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        oban = await start(queues=limited(10, 1), **NEVER)
        ids = await add(*(Holding.new() for _ in range(5)))
        await Holding.begin(1)
        await oban.scale_queue(queue="limits", global_limit=3)
        await Holding.begin(3)
        await oban.scale_queue(queue="limits", global_limit=1)
        Holding.release(*ids[:2])
        await until(lambda: len(Holding.running) == 1)
        await until(lambda: _is({S.COMPLETED: 2, S.EXECUTING: 1, S.AVAILABLE: 2}, sessions))
        Holding.release(ids[2])
        await Holding.begin(4)
        await oban.scale_queue(queue="limits", global_limit=None)
        await Holding.begin(5)
        Holding.release_all()

    async def test_an_order_outlasts_a_restart(self, start: StartOban, client: Oban) -> None:
        await client.scale_queue(queue="limits", global_limit=7)
        await client.scale_queue(queue="limits", limit=9)
        oban = await start(queues={"limits": 3})
        info = oban.check_one_queue("limits")
        assert (info.limit, info.meta["global_limit"]) == (3, {"allowed": 7})
        await client.scale_queue(queue="limits", global_limit=None)
        await until(lambda: "global_limit" not in oban.check_one_queue("limits").meta)
        await oban.stop()
        oban = await start(queues=limited(3, 5))
        assert "global_limit" not in oban.check_one_queue("limits").meta

    async def test_orders_of_oban_web_are_followed(
        self, start: StartOban, engine: AsyncEngine, prefix: str
    ) -> None:
        """Orders of Oban Web are followed. Invalid orders change nothing."""
        oban = await start(queues={"limits": 3}, name="Oban")
        # Oban Web does not store its orders, so the node must listen already.
        await until(lambda: services(oban).notifier.listening)
        for given, found in (
            ('{"allowed": 4}', {"allowed": 4}),
            ("6", {"allowed": 6}),
            ('{"allowed": 7, "burst": false, "partition": null}', {"allowed": 7}),
            ('{"allowed": 1, "partition": {"fields": ["nope"]}}', {"allowed": 7}),
            (
                '{"allowed": 1, "partition": {"fields": ["worker"]}}',
                {"allowed": 1, "partition": {"fields": ["worker"]}},
            ),
            ("6", {"allowed": 6}),
            ("0", {"allowed": 6}),
            ('"x"', {"allowed": 6}),
            ("null", None),
        ):
            signal = (
                '{"action": "scale", "queue": "limits", "ident": "any", "global_limit": '
                + given
                + "}"
            )
            notify = text("SELECT pg_notify(:channel, :signal)")
            async with engine.begin() as connection:
                await connection.execute(
                    notify, {"channel": f"{prefix}.oban_signal", "signal": signal}
                )
            await until(
                lambda found=found: oban.check_one_queue("limits").meta.get("global_limit") == found
            )

    async def test_invalid_values_are_refused(self, client: Oban, sessions: Sessions) -> None:
        with pytest.raises(
            ConfigError, match="global_limit of queue 'limits': it must be an integer"
        ):
            await client.scale_queue(queue="limits", global_limit=0)
        with pytest.raises(ValueError, match="leave node out"):
            await client.scale_queue(queue="limits", global_limit=1, node="one")
        with pytest.raises(TypeError, match="needs a limit, a global_limit or a rate_limit"):
            await client.scale_queue(queue="limits")
        async with sessions() as session:
            assert (await session.scalars(select(QueueOrder))).all() == []


S = JobState


@pytest.mark.parametrize(
    "given", [0, -1, True, 1.5, "3", {"allowed": 0}, {"allowed": 1, "other": 2}, [1]]
)
async def test_an_invalid_limit_is_refused(engine: AsyncEngine, given: object) -> None:
    with pytest.raises(ConfigError, match="the global_limit of queue 'q': it must be an integer"):
        Oban(engine, queues={"q": {"limit": 1, "global_limit": given}})


async def test_a_node_runs_all_of_them_if_it_has_no_limit_of_its_own(start: StartOban) -> None:
    oban = await start(queues={"limits": {"global_limit": {"allowed": 7}}})
    info = oban.check_one_queue("limits")
    assert (info.limit, info.meta["global_limit"]) == (7, {"allowed": 7})


async def test_a_claim_waits_for_that_of_another_node(
    start: StartOban, engine: AsyncEngine, prefix: str, add: Add
) -> None:
    """The claim counts the jobs that the other node has committed."""
    oban = await start(queues=limited(10, 1), **NEVER)
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
    async with engine.begin() as connection:
        await connection.execute(lock, {"name": f"oban_sqla limits queue {prefix} limits"})
        with hear(oban, "claim_stop") as claims:
            await add(Holding.new())
            await asyncio.sleep(0)
            insert = f"""
                INSERT INTO "{prefix}".oban_jobs (worker, queue, state)
                VALUES ('x', 'limits', 'executing')
            """
            await connection.execute(text(insert))
            await connection.commit()
            await claims.wait()
        assert claims.events[0].count == 0
    assert Holding.begun == []
