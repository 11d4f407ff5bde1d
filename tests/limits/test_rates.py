"""Rates: no period has more starts, whenever it begins, and each permit is used at once."""

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import ConfigError, Job, JobState, Limit, Oban, Rate, RateLimited, Snooze, Worker
from oban_sqla.limits.holds import forget_rates
from oban_sqla.limits.rows import RateRow, StartRow
from tests.conftest import Add, StartOban
from tests.limits.workers import Holding
from tests.listening import hear
from tests.runtime.conftest import until
from tests.services import paused_in_claims

Sessions = async_sessionmaker[AsyncSession]
NEVER: dict[str, Any] = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


class Fast(Worker, queue="limits", rate=Rate(5, per=0.3)):
    async def process(self, job: Job) -> None: ...


class Bursting(Worker, queue="limits", rate=Rate(5, per=0.3, burst=5)):
    async def process(self, job: Job) -> None: ...


class PerKey(Holding, rate=Rate(2, per=3600, by="key")):
    """A worker with two starts of a key in an hour."""


class Heavy(Holding, rate=Rate(5, per=3600, weight=lambda job: job.args["weight"])):
    """A worker with five permits in an hour."""


class Slow(Holding, rate=Rate(1, per=3600)):
    """A worker with one start in an hour."""


class Snoozing(Worker, queue="limits", rate=Rate(2, per=3600)):
    async def process(self, job: Job) -> Snooze:
        return Snooze(0.01)


class Plain(Worker, queue="limits"):
    async def process(self, job: Job) -> None: ...


async def starts(sessions: Sessions) -> list[datetime]:
    async with sessions() as session:
        query = select(Job.attempted_at).where(Job.attempted_at.is_not(None))
        return sorted(await session.scalars(query))


def most_in_a_period(instants: list[datetime], period: float) -> int:
    return max(
        sum(0 <= (other - first).total_seconds() < period for other in instants)
        for first in instants
    )


async def completed(sessions: Sessions) -> int:
    async with sessions() as session:
        query = select(func.count()).where(Job.state == JobState.COMPLETED)
        return await session.scalar(query) or 0


async def test_no_period_has_more_starts_over_two_nodes(
    start: StartOban, sessions: Sessions, add: Add
) -> None:
    await add(*(Fast.new() for _ in range(23)))
    began = time.monotonic()
    nodes = [await start(queues={"limits": 10}, node=name, **NEVER) for name in "ab"]
    await until(lambda: _completed(sessions, 23))
    assert time.monotonic() - began >= 4 * 0.3
    assert most_in_a_period(await starts(sessions), 0.3) == 5
    assert {node.node for node in nodes} == {"a", "b"}


async def _completed(sessions: Sessions, count: int) -> bool:
    return await completed(sessions) == count


async def test_the_next_start_comes_at_the_instant_of_the_permit(
    start: StartOban, sessions: Sessions, add: Add
) -> None:
    """The job starts without a poll."""
    await add(*(Fast.new() for _ in range(15)))
    await start(queues={"limits": 10}, **NEVER)
    await until(lambda: _completed(sessions, 15))
    instants = await starts(sessions)
    gaps = [
        (later - sooner).total_seconds()
        for sooner, later in pairwise([instants[n] for n in (0, 5, 10)])
    ]
    # A busy machine may be late, but never early.
    assert all(0.3 <= gap < 0.8 for gap in gaps), gaps


async def test_unused_starts_are_saved_for_a_burst(
    start: StartOban, sessions: Sessions, add: Add
) -> None:
    await add(*(Bursting.new() for _ in range(20)))
    await start(queues={"limits": 20}, **NEVER)
    await until(lambda: _completed(sessions, 20))
    instants = await starts(sessions)
    assert (instants[9] - instants[0]).total_seconds() < 0.2
    assert most_in_a_period(instants, 0.3) == 10
    # Ten starts at once, then five per period.
    assert (instants[19] - instants[0]).total_seconds() >= 2 * 0.3 - 0.01


async def test_a_key_that_has_had_its_starts_does_not_block_the_others(
    start: StartOban, add: Add
) -> None:
    ids = await add(*(PerKey.new({"key": key}) for key in "aaaab"))
    await start(queues={"limits": 10}, **NEVER)
    assert {*await Holding.begin(3)} == {*ids[:2], ids[4]}
    Holding.release_all()
    (later,) = await add(PerKey.new({"key": "c"}))
    assert (await Holding.begin(4))[3] == later


async def test_a_heavy_job_takes_more_permits(start: StartOban, add: Add) -> None:
    two, four, one = await add(*(Heavy.new({"weight": weight}) for weight in (2, 4, 1)))
    await start(queues={"limits": 10}, **NEVER)
    assert await Holding.begin(1) == [two]
    # The light job does not overtake, or the heavy job would never start.
    assert {four, one}.isdisjoint(Holding.begun)


async def test_snoozes_and_retries_count(start: StartOban, sessions: Sessions, add: Add) -> None:
    await add(Snoozing.new())
    oban = await start(queues={"limits": 10}, **NEVER)
    with hear(oban, "claim_stop") as claims:
        await claims.until(lambda stops: sum(stop.count for stop in stops) >= 1)
    await until(lambda: _counted(sessions, 2))
    async with sessions() as session:
        (job,) = await session.scalars(select(Job))
        assert job.meta["snoozed"] <= 2


async def _counted(sessions: Sessions, count: int) -> bool:
    async with sessions() as session:
        return await session.scalar(select(func.sum(StartRow.starts))) == count


async def test_a_job_that_did_not_start_gives_its_permit_back(
    start: StartOban, sessions: Sessions, add: Add
) -> None:
    """The queue is paused during the claim."""
    oban = await start(queues={"limits": {"limit": 5, "rate_limit": Rate(2, per=3600)}}, **NEVER)
    with hear(oban, "give_back_stop") as returns, paused_in_claims(oban, "limits") as producer:
        await add(Slow.new())
        await returns.wait()
        await until(lambda: _counted(sessions, 0))
    producer.resume()
    await Holding.begin(1)
    assert await _counted(sessions, 2)  # the limit of the worker, and that of the queue


class TestOfAQueue:
    async def test_a_rate_of_a_queue_counts_all_its_jobs(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        await add(*(Plain.new() for _ in range(12)))
        rate = {"allowed": 5, "period": 0.3}
        await start(queues={"limits": {"limit": 10, "rate_limit": rate}}, node="a", **NEVER)
        await start(queues={"limits": {"limit": 10, "rate_limit": rate}}, node="b", **NEVER)
        await until(lambda: _completed(sessions, 12))
        assert most_in_a_period(await starts(sessions), 0.3) == 5

    async def test_the_row_of_the_producer_has_the_rate(self, start: StartOban, add: Add) -> None:
        limits = {"global_limit": 4, "rate_limit": Rate(3, per=60, burst=1)}
        oban = await start(queues={"limits": {"limit": 10, **limits}}, **NEVER)
        with hear(oban, "job_stop") as stops:
            await add(Plain.new())
            await stops.wait()
        meta = oban.check_one_queue("limits").meta
        assert meta["global_limit"] == {"allowed": 4}
        assert meta["rate_limit"] == {
            "allowed": 3,
            "period": 60.0,
            "burst": 1,
            "windows": [{"curr_count": 1, "prev_count": 0}],
        }

    async def test_an_order_changes_the_rate_and_outlasts_a_restart(
        self, start: StartOban, client: Oban, add: Add, sessions: Sessions
    ) -> None:
        oban = await start(
            queues={"limits": {"limit": 9, "rate_limit": Rate(1, per=3600)}}, **NEVER
        )
        await add(*(Plain.new() for _ in range(3)))
        await until(lambda: _completed(sessions, 1))
        await client.scale_queue(queue="limits", rate_limit=Rate(2, per=3600))
        await until(lambda: _completed(sessions, 2))
        await oban.stop()
        oban = await start(queues={"limits": 3}, **NEVER)
        assert oban.check_one_queue("limits").meta["rate_limit"]["allowed"] == 2
        await client.scale_queue(queue="limits", rate_limit=None)
        await until(lambda: _completed(sessions, 3))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (5, "must be a Rate"),
            ({"allowed": 5}, "must hold allowed and period"),
            ({"allowed": 0, "period": 1}, "allowed must be an integer from 1"),
            ({"allowed": 1, "period": 1, "other": 1}, "must hold allowed and period"),
            ({"allowed": 1, "period": 1, "burst": ""}, "burst must be an integer"),
            (Rate(1, per=1, by="key"), "leave by, name and weight out"),
            (Rate(1, per=1, name="x"), "leave by, name and weight out"),
        ],
    )
    async def test_invalid_values_are_refused(
        self, engine: AsyncEngine, given: object, message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            Oban(engine, queues={"q": {"limit": 1, "rate_limit": given}})


class Service(Holding):
    """A worker that raises `RateLimited`."""

    async def outcome(self, job: Job) -> None:
        if job.args.get("seconds") and not job.meta.get("snoozed"):
            raise RateLimited(retry_after=job.args["seconds"])


class Api(Service, name="rates.api", rate=Rate(100, per=3600, name="api")):
    """A worker with a rate."""


class OfAccount(Service, name="rates.account", limit=Limit(5, by="account")):
    """A worker with a limit by key."""


class TestRateLimited:
    async def test_no_job_of_the_rate_starts_on_any_node_before_the_time(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        nodes = [await start(queues={"limits": 1}, node=name, **NEVER) for name in "ab"]
        (first,) = await add(Api.new({"seconds": 0.5}))
        await Holding.begin(1)
        with hear(nodes[0], "job_stop") as one, hear(nodes[1], "job_stop") as two:
            Holding.release_all()
            await until(lambda: one.events or two.events)
            limited_at = time.monotonic()
            await until(lambda: _held(sessions, "api"))
            (second,) = await add(Api.new())
            await Holding.begin(3)
            assert time.monotonic() - limited_at >= 0.4
        assert {*Holding.begun} == {first, second}
        await until(lambda: _completed(sessions, 2))
        async with sessions() as session:
            assert {*await session.scalars(select(Job.attempt))} == {1}
            assert {*await session.scalars(select(func.jsonb_array_length(Job.errors)))} == {0}

    async def test_only_the_key_is_held(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        await start(queues={"limits": 5}, **NEVER)
        (first,) = await add(OfAccount.new({"account": 1, "seconds": 3600}))
        await Holding.begin(1)
        Holding.release_all()
        await until(lambda: _held(sessions, "rates.account=1"))
        same, another = await add(OfAccount.new({"account": 1}), OfAccount.new({"account": 2}))
        assert await Holding.begin(2) == [first, another]
        assert same not in Holding.begun

    async def test_a_job_without_limits_waits_alone(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        class Unlimited(Worker, name="rates.unlimited", queue="limits"):
            async def process(self, job: Job) -> None:
                if not job.meta.get("snoozed"):
                    raise RateLimited(0.05)

        await add(Unlimited.new())
        await start(queues={"limits": 5}, **NEVER)
        await until(lambda: _completed(sessions, 1))

    @pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
    def test_an_invalid_time_is_refused(self, seconds: float) -> None:
        with pytest.raises(ValueError, match=r"RateLimited\(retry_after\)"):
            RateLimited(seconds)


async def _held(sessions: Sessions, name: str) -> bool:
    async with sessions() as session:
        row = await session.get(RateRow, name)
        return row is not None and row.held_until is not None


async def test_unused_rows_are_deleted(engine: AsyncEngine, sessions: Sessions) -> None:
    now = datetime.now(UTC)
    day, hour = timedelta(days=1), timedelta(hours=1)
    async with sessions.begin() as session:
        session.add_all(
            [
                RateRow(rate="held", held_until=now + hour),
                RateRow(rate="was held", held_until=now - hour),
                RateRow(rate="saves", tokens=1.0, counted_at=now - hour),
                RateRow(rate="idle", tokens=1.0, counted_at=now - 2 * day),
                RateRow(rate="slow", tokens=1.0, counted_at=now - 2 * day),
                StartRow(rate="slow", at=now - 2 * day, starts=1, expires_at=now + day),
            ]
        )
        await session.flush()
        await session.execute(forget_rates())
        left = await session.scalars(select(RateRow.rate).order_by(RateRow.rate))
        assert left.all() == ["held", "saves", "slow"]
