"""Limits by key are exact and fair, and leave no slot unused."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import func, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Limit, Oban
from tests.conftest import Add, StartOban
from tests.databases import async_engine
from tests.limits.conftest import many
from tests.limits.workers import Holding
from tests.listening import hear
from tests.runtime.conftest import until
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]
NEVER: dict[str, Any] = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


class One(Holding, limit=Limit(1, by="key")):
    """A worker with one job of a key at once."""


class Two(Holding, limit=Limit(2, by="key")):
    """A worker with two jobs of a key at once."""


class Sharing(Holding, limit=Limit(1, by="key", burst=True)):
    """A worker with one job of a key at once, or more while slots are free."""


class Free(Holding):
    """A worker without a limit."""


class Elsewhere(Holding, queue="other", limit=Limit(2, by="account", name="shared")):
    """A worker that shares a limit with `Shared`, in another queue, by another argument."""


class Shared(Holding, limit=Limit(2, by="key", name="shared")):
    """A worker that shares a limit with `Elsewhere`."""


class Tiered(Holding, limit=Limit(lambda key: 3 if key == "vip" else 1, by="key")):
    """A worker whose limit depends on the key."""


def jobs(worker: type[Holding], *keys: object, **options: Any) -> list[Job]:
    return [worker.new({"key": key}, **options) for key in keys]


async def executing(sessions: Sessions) -> Counter[str]:
    async with sessions() as session:
        key = Job.meta["oban_sqla_limits"]["limit"]["key"].astext
        query = select(key, func.count()).where(Job.state == JobState.EXECUTING).group_by(key)
        return Counter({key: count for key, count in await session.execute(query)})


async def test_no_more_jobs_of_a_key_run_than_its_limit(
    start: StartOban, sessions: Sessions, add: Add
) -> None:
    await add(*jobs(Two, *"aaaabbc"))
    await start(queues={"limits": 10}, node="one", **NEVER)
    await start(queues={"limits": 10}, node="two", **NEVER)
    await Holding.begin(5)
    assert await executing(sessions) == {'"a"': 2, '"b"': 2, '"c"': 1}
    Holding.release_all()
    await Holding.begin(7)


async def test_the_keys_take_turns_at_free_slots(
    start: StartOban, sessions: Sessions, add: Add
) -> None:
    await add(*jobs(Two, *"aaaaaabbbbbbcccccc"))
    await start(queues={"limits": 3}, **NEVER)
    await Holding.begin(3)
    assert await executing(sessions) == {'"a"': 1, '"b"': 1, '"c"': 1}
    Holding.release_all()
    await Holding.begin(18)


async def test_a_better_priority_goes_first_whatever_its_key(
    start: StartOban, sessions: Sessions, add: Add
) -> None:
    await add(*jobs(Two, *"ab", priority=3))
    (first, second) = await add(*jobs(Two, *"cc", priority=1))
    await start(queues={"limits": 2}, **NEVER)
    assert {*await Holding.begin(2)} == {first, second}
    Holding.release_all()
    await Holding.begin(4)


async def test_a_full_key_does_not_block_jobs_behind_it(
    start: StartOban, engine: AsyncEngine, sessions: Sessions, add: Add
) -> None:
    await many(engine, One.new({"key": "a"}), 100_000)
    (behind,) = await add(One.new({"key": "b"}))
    await start(queues={"limits": 10}, **NEVER)
    assert behind in await Holding.begin(2)
    assert await executing(sessions) == {'"a"': 1, '"b"': 1}
    (another,) = await add(One.new({"key": "c"}))
    assert another in await Holding.begin(3)


async def test_jobs_without_a_limit_do_not_wait_for_limited_jobs(
    start: StartOban, engine: AsyncEngine, add: Add
) -> None:
    await many(engine, One.new({"key": "a"}), 10_000)
    free = await add(*(Free.new() for _ in range(3)))
    await start(queues={"limits": 4}, **NEVER)
    assert {*free} < {*await Holding.begin(4)}


async def test_jobs_with_infinite_times_start(
    start: StartOban, sessions: Sessions, add: Add, prefix: str, expect_errors: None
) -> None:
    ids = await add(*jobs(One, "a", "b"), *jobs(Free, "c", "d"))
    async with sessions.begin() as session:
        await session.execute(
            text(
                f"UPDATE \"{prefix}\".oban_jobs SET scheduled_at = '-infinity' WHERE id IN (:a, :b)"
            ),
            {"a": ids[0], "b": ids[2]},
        )
    oban = await start(queues={"limits": 10}, **NEVER)
    with hear(oban, "job_exception") as unreadable:
        await Holding.begin(2)
        await unreadable.wait(2)
    assert {*Holding.begun} == {ids[1], ids[3]}


async def test_limited_jobs_do_not_wait_for_jobs_without_a_limit(
    start: StartOban, engine: AsyncEngine, add: Add
) -> None:
    await many(engine, Free.new(), 10_000)
    limited = await add(*jobs(One, *"ab"))
    await start(queues={"limits": 4}, **NEVER)
    assert {*limited} < {*await Holding.begin(4)}


class TestBurst:
    async def test_two_busy_keys_use_all_slots(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        await add(*jobs(Sharing, *"aaaaaaaaaa"), *jobs(Sharing, *"bbbbbbbbbb"))
        await start(queues={"limits": {"global_limit": 5}}, **NEVER)
        await Holding.begin(5)
        assert sorted((await executing(sessions)).values()) == [2, 3]

    async def test_three_busy_keys_use_all_slots_and_none_holds_four(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        await start(queues={"limits": {"global_limit": 5}}, **NEVER)
        await add(*jobs(Sharing, *"aaaaaaaaaaaaaaaa"))
        await Holding.begin(5)
        assert await executing(sessions) == {'"a"': 5}
        await add(*jobs(Sharing, *"bbbbbbbb"), *jobs(Sharing, *"cccccccc"))
        for turn in range(1, 12):
            Holding.release(min(Holding.running))
            await Holding.begin(5 + turn)
            shares = await executing(sessions)
            assert sum(shares.values()) == 5
            assert turn < 2 or max(shares.values()) < 4
        assert sorted(shares.values()) == [1, 2, 2]


class TestFairness:
    async def test_no_key_starves(self, start: StartOban, sessions: Sessions, add: Add) -> None:
        """The keys take turns."""
        ids = await add(*(job for key in "abcdefgh" for job in jobs(Two, key, key, key)))
        keys = dict(zip(ids, (key for key in "abcdefgh" for _ in range(3)), strict=True))
        await start(queues={"limits": 1}, **NEVER)
        for count in range(1, 25):
            last = (await Holding.begin(count))[count - 1]
            Holding.release(last)
            await until(lambda last=last: last not in Holding.running)
        order = [keys[id] for id in Holding.begun]
        assert [Counter(order[start : start + 8]) for start in (0, 8, 16)] == [
            Counter("abcdefgh")
        ] * 3

    async def test_a_locked_job_does_not_block_its_key(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        first, second = await add(*jobs(One, *"aa"))
        async with sessions.begin() as session:
            await session.execute(select(Job).where(Job.id == first).with_for_update())
            await start(queues={"limits": 10}, **NEVER)
            assert await Holding.begin(1) == [second]

    async def test_a_slot_is_used_at_once_by_another_node(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        """A node that waits for the key uses the slot when this node writes the outcome."""
        first, second = await add(*jobs(One, *"aa"))
        await start(queues={"limits": 1}, node="one", poll_interval=0.05)
        await Holding.begin(1)
        await start(queues={"limits": 1}, node="two", poll_interval=0.05)
        Holding.release(first)
        assert await Holding.begin(2) == [first, second]


class TestSharedLimits:
    async def test_a_limit_is_shared_by_queues(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        await add(*jobs(Shared, *"aaa"), *(Elsewhere.new({"account": "a"}) for _ in range(3)))
        await start(queues={"limits": 10, "other": 10}, poll_interval=0.05)
        await Holding.begin(2)
        assert await executing(sessions) == {'"a"': 2}
        Holding.release_all()
        await Holding.begin(6)
        assert Holding.most == 2

    async def test_the_slots_of_one_queue_wake_the_other(self, start: StartOban, add: Add) -> None:
        await add(*jobs(Shared, *"aa"))
        with hear(Oban, "claim_stop") as first:
            oban = await start(queues={"limits": 10, "other": 10}, **NEVER)
            await first.until(lambda stops: {"limits", "other"} <= {stop.queue for stop in stops})
        await Holding.begin(2)
        with hear(oban, "claim_stop") as claims:
            (waiting,) = await add(Elsewhere.new({"account": "a"}))
            await claims.until(lambda stops: "other" in {stop.queue for stop in stops})
        Holding.release(Holding.begun[0])
        assert (await Holding.begin(3))[2] == waiting


async def test_a_limit_may_depend_on_the_key(
    start: StartOban, sessions: Sessions, add: Add
) -> None:
    await add(*jobs(Tiered, "vip", "vip", "vip", "vip", "b", "b", None, None))
    await start(queues={"limits": 10}, **NEVER)
    await Holding.begin(5)
    assert await executing(sessions) == {'"vip"': 3, '"b"': 1, "null": 1}


async def test_a_job_that_no_worker_here_declares_is_found_to_be_limited(
    start: StartOban, sessions: Sessions, add: Add
) -> None:
    """The job is in a queue in which no imported worker has limits."""
    oban = await start(queues={"elsewhere": 10}, **NEVER)
    with hear(oban, "give_back_stop") as returns:
        await add(*(One.new({"key": "a"}, queue="elsewhere") for _ in range(3)))
        await Holding.begin(1)
        await returns.wait()
    assert await executing(sessions) == {'"a"': 1}
    async with sessions() as session:
        assert {*await session.scalars(select(Job.attempt))} == {0, 1}


STRANGE: list[dict[str, Any]] = [
    {"partition_key": None},
    {"partition_key": ""},
    {"partition_key": 7},
    {"partition_key": "x"},
    {"partition_key": "x", "oban_sqla_limits": 5},
    {"partition_key": "x", "oban_sqla_limits": None},
    {"partition_key": "x", "oban_sqla_limits": {"limit": {"id": "y1", "allowed": "many"}}},
    {"partition_key": "x", "oban_sqla_limits": {"limit": {"id": "y2", "allowed": 1e99}}},
    {"partition_key": "x", "oban_sqla_limits": {"rate": {"id": "y3", "period": "long"}}},
    {"partition_key": "x", "oban_sqla_limits": {"rate": {"id": "y4", "weight": -1}}},
]


async def test_invalid_terms_of_other_programs_stop_nothing(
    start: StartOban, sessions: Sessions, add: Add
) -> None:
    strange = await add(*(Free.new() for _ in STRANGE))
    good = await add(One.new({"key": "a"}))
    async with sessions.begin() as session:
        for id, meta in zip(strange, STRANGE, strict=True):
            change = update(Job).where(Job.id == id)
            await session.execute(change.values(meta=literal(meta, JSONB)))
    await start(queues={"limits": 20}, **NEVER)
    assert {*await Holding.begin(11)} == {*strange, *good}


class TestStatements:
    """The claim as SQLAlchemy sends it: through another driver, and after a failure."""

    async def test_asyncpg_obeys_the_limits(
        self, postgres_dsn: str, prefix: str, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        pytest.importorskip("asyncpg")
        engine = async_engine(postgres_dsn, prefix, "asyncpg")
        await add(*jobs(Two, *"aaab"), Free.new())
        oban = await start(engine, queues={"limits": 10}, **NEVER)
        await Holding.begin(4)
        assert await executing(sessions) == {'"a"': 2, '"b"': 1, None: 1}
        Holding.release_all()
        await Holding.begin(5)
        await oban.stop()
        await engine.dispose()

    async def test_claims_go_on_after_a_failure(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        oban = await start(queues={"limits": 10}, **NEVER)
        way = services(oban).producers["limits"]._way
        way._statement_by_key()._failed = True
        await add(*jobs(Two, *"aaab"), Free.new())
        await Holding.begin(4)
        assert await executing(sessions) == {'"a"': 2, '"b"': 1, None: 1}
