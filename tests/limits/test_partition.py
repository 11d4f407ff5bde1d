"""The limits of a queue by keys: Oban's `partition`, for jobs that any program inserts."""

import json
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import ConfigError, Job, JobState, Limit, Oban, Rate, RateLimited
from oban_sqla.limits import queue_keying
from oban_sqla.limits.rows import RateRow, StartRow
from oban_sqla.settings import parse_queues
from tests.conftest import Add, StartOban, Tune
from tests.databases import async_engine
from tests.limits.conftest import many
from tests.limits.workers import Holding
from tests.listening import hear
from tests.runtime.conftest import until
from tests.services import paused_in_claims

Sessions = async_sessionmaker[AsyncSession]
NEVER: dict[str, Any] = {"poll_interval": 3600.0, "fallback_interval": 3600.0}

BY_ACCOUNT = {"fields": ["args"], "keys": ["account_id"]}
TWO = {"allowed": 2, "partition": BY_ACCOUNT}


class Mail(Holding, name="partition.mail", queue="partitioned"):
    """A worker without a limit of its own."""


class Report(Holding, name="partition.report", queue="partitioned"):
    """Another worker of the queue."""


class Own(Holding, name="partition.own", queue="partitioned", limit=Limit(3, by="region")):
    """A worker with a limit of its own."""


class Limited(Holding, name="partition.limited", queue="partitioned"):
    """A worker that raises `RateLimited`."""

    async def outcome(self, job: Job) -> None:
        if job.args.get("seconds") and not job.meta.get("snoozed"):
            raise RateLimited(retry_after=job.args["seconds"])


def of(*accounts: object, worker: type[Holding] = Mail, **options: Any) -> list[Job]:
    return [worker.new({"account_id": account}, **options) for account in accounts]


def queue(limit: int = 10, **options: Any) -> dict[str, Any]:
    return {"partitioned": {"limit": limit, **options}}


async def executing(sessions: Sessions, path: str = "account_id") -> Counter[Any]:
    async with sessions() as session:
        query = select(Job.args).where(Job.state == JobState.EXECUTING)
        return Counter(args.get(path) for args in await session.scalars(query))


class TestLimit:
    async def test_no_more_jobs_of_a_key_run_on_two_nodes_than_its_limit(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        await add(*of(1, 1, 1, 1, 2, 2, None), Mail.new({"account_id": "1"}), Mail.new())
        for node in ("one", "two"):
            await start(queues=queue(global_limit=TWO), node=node, **NEVER)
        await Holding.begin(7)
        assert await executing(sessions) == {1: 2, 2: 2, "1": 1, None: 2}
        Holding.release_all()
        await Holding.begin(9)

    async def test_jobs_that_another_program_inserts_are_limited(
        self, start: StartOban, sessions: Sessions, engine: AsyncEngine, prefix: str
    ) -> None:
        await start(queues=queue(global_limit=TWO), **NEVER)
        rows = """
            INSERT INTO "{0}".oban_jobs (worker, queue, args, meta, priority)
            SELECT 'partition.mail', 'partitioned', '{{"account_id": 1}}', meta::jsonb, priority
            FROM (VALUES ('{{}}', 0), ('{{"partition_key": "x", "oban_sqla_limits": 5}}', 1),
                ('[]', 2), ('7', 3), ('{{}}', 12), ('{{}}', 32767)) AS t (meta, priority)
        """
        notify = "SELECT pg_notify('{0}.oban_insert', '{{\"queue\": \"partitioned\"}}')"
        async with engine.begin() as connection:
            await connection.exec_driver_sql(rows.format(prefix))
            await connection.exec_driver_sql(notify.format(prefix))
        await Holding.begin(2)
        assert await executing(sessions) == {1: 2}

    async def test_jobs_that_another_program_runs_are_counted(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        foreign = Job("x", {"account_id": 1}, queue="partitioned", state=JobState.EXECUTING)
        await add(foreign, *of(1, 1, 2))
        await start(queues=queue(global_limit=TWO), **NEVER)
        await Holding.begin(2)
        assert await executing(sessions) == {1: 2, 2: 1}

    async def test_a_full_key_does_not_block_jobs_behind_it(
        self, start: StartOban, sessions: Sessions, engine: AsyncEngine, add: Add
    ) -> None:
        await many(engine, Mail.new({"account_id": 1}), 30_000)
        (behind,) = await add(*of(2))
        await start(queues=queue(global_limit=TWO), **NEVER)
        assert behind in await Holding.begin(3)
        assert await executing(sessions) == {1: 2, 2: 1}

    async def test_the_keys_take_turns_at_free_slots(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        await add(*of(*[1] * 6, *[2] * 6, *[3] * 6))
        await start(queues=queue(3, global_limit=TWO), **NEVER)
        await Holding.begin(3)
        assert await executing(sessions) == {1: 1, 2: 1, 3: 1}
        Holding.release_all()
        await Holding.begin(18)

    @pytest.mark.parametrize(("keys", "shares"), [(2, [2, 3]), (3, [1, 2, 2])])
    async def test_a_burst_uses_all_slots(
        self, start: StartOban, sessions: Sessions, add: Add, keys: int, shares: list[int]
    ) -> None:
        await add(*of(*[key for key in range(keys) for _ in range(10)]))
        one = {"allowed": 1, "burst": True, "partition": BY_ACCOUNT}
        await start(queues=queue(5, global_limit=one), **NEVER)
        await Holding.begin(5)
        assert sorted((await executing(sessions)).values()) == shares

    async def test_a_limit_of_the_worker_applies_too(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        regions = [{"account_id": n % 3, "region": "eu"} for n in range(9)]
        await add(*(Own.new(args) for args in regions), *of(0, 1, 2, 0, 1, 2))
        await start(queues=queue(20, global_limit=TWO), **NEVER)
        await Holding.begin(6)
        assert await executing(sessions) == {0: 2, 1: 2, 2: 2}
        async with sessions() as session:
            query = select(func.count()).where(Job.state == JobState.EXECUTING)
            assert await session.scalar(query.where(Job.worker == "partition.own")) <= 3
        Holding.release_all()
        await Holding.begin(15)

    async def test_a_slot_is_used_at_once_by_another_node(self, start: StartOban, add: Add) -> None:
        first, second = await add(*of(1, 1))
        one = {"global_limit": {**TWO, "allowed": 1}}
        await start(queues=queue(1, **one), node="one", **NEVER)
        await Holding.begin(1)
        two = await start(queues=queue(1, **one), node="two", **NEVER)
        with hear(two, "claim_stop") as claims:
            (other,) = await add(*of(2))
            await Holding.begin(2)
            await claims.wait()
        assert Holding.begun == [first, other]
        Holding.release(first, other)
        await Holding.begin(3)
        assert Holding.begun[2] == second

    async def test_better_priorities_go_first(self, start: StartOban, add: Add) -> None:
        await add(*of(1, 2, priority=3))
        better = await add(*of(3, 3, priority=1))
        await start(queues=queue(2, global_limit=TWO), **NEVER)
        assert sorted(await Holding.begin(2)) == sorted(better)


class TestKeys:
    @pytest.mark.parametrize(
        ("partition", "jobs", "running"),
        [
            ({"fields": ["worker"]}, [*of(1, 2), *of(1, 2, worker=Report)], 2),
            ({"fields": ["worker", "args"], "keys": ["account_id"]}, [*of(1, 1, 2)], 2),
            ({"fields": ["args"], "keys": ["a", "b"]}, [{"a": 1, "b": 2}, {"a": 1, "b": 3}], 2),
            (
                {"fields": ["args"], "keys": ["a.b"]},
                [{"a": {"b": 1}}, {"a": {"b": 1}}, {"a": 5}],
                2,
            ),
            ({"fields": ["args"], "keys": ["a"]}, [{"a": {"x": [1]}}, {"a": {"x": [1]}}], 1),
            ({"fields": ["args"], "keys": ["a"]}, [{"a": "x" * 9000 + end} for end in "aab"], 2),
            ({"fields": ["args"], "keys": ["it's", '{"}']}, [{"it's": 1}, {"it's": 2}], 2),
            (
                {"fields": ["meta"], "keys": ["tenant"]},
                [Mail.new(meta={"tenant": tenant}) for tenant in ("a", "a", "b", None)],
                3,
            ),
        ],
    )
    async def test_each_field_gives_a_key(
        self, start: StartOban, add: Add, partition: dict[str, Any], jobs: list[Any], running: int
    ) -> None:
        made = [
            Job(one.worker, dict(one.args), queue=one.queue, meta=dict(one.meta))
            if isinstance(one, Job)
            else Mail.new(one)
            for one in jobs
        ]
        await add(*made)
        limit = {"allowed": 1, "partition": partition}
        oban = await start(queues=queue(global_limit=limit), **NEVER)
        with hear(oban, "claim_stop") as claims:
            await Holding.begin(running)
            await add(Job("none", queue="another"))
            await until(lambda: claims.events)
        assert len(Holding.begun) == running
        Holding.release_all()
        await Holding.begin(len(made))
        assert Holding.most == running

    async def test_a_changed_argument_changes_the_key(
        self, start: StartOban, client: Oban, sessions: Sessions, add: Add
    ) -> None:
        _, _, waiting = await add(*of(1, 1, 1))
        await start(queues=queue(global_limit=TWO), **NEVER)
        await Holding.begin(2)
        await client.update_jobs(waiting, {"args": {"account_id": 2}})
        await Holding.begin(3)
        assert await executing(sessions) == {1: 2, 2: 1}

    async def test_a_job_moved_to_another_queue_changes_its_key(
        self, start: StartOban, client: Oban, add: Add
    ) -> None:
        queues = queue(global_limit=TWO) | {"other": {"limit": 9, "global_limit": TWO}}
        await start(queues=queues, **NEVER)
        *_, third = await add(*of(1, 1, 1))
        await Holding.begin(2)
        await client.update_jobs(third, {"queue": "other"})
        assert (await Holding.begin(3))[2] == third

    async def test_a_changed_partition_changes_the_keys(
        self, start: StartOban, client: Oban, sessions: Sessions, add: Add
    ) -> None:
        await add(*(Mail.new({"account_id": 1, "region": n}) for n in range(6)))
        await start(queues=queue(global_limit=TWO), **NEVER)
        await Holding.begin(2)
        by_region = {"allowed": 1, "partition": {"fields": ["args"], "keys": ["region"]}}
        await client.scale_queue(queue="partitioned", global_limit=by_region)
        await Holding.begin(6)
        assert set((await executing(sessions, "region")).values()) == {1}

    async def test_jobs_get_their_keys_in_batches(
        self, start: StartOban, add: Add, tune: Tune
    ) -> None:
        """All jobs have their keys in the end."""
        tune(queue_keying, BATCH=3)
        ids = await add(*of(*[1] * 20, 2), *of(3, priority=5))
        await start(queues=queue(global_limit=TWO), **NEVER)
        assert {*ids[-2:]} < {*await Holding.begin(4)}

    async def test_a_locked_job_does_not_stop_the_others(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        first, second = await add(*of(1, 1))
        async with sessions.begin() as session:
            await session.execute(select(Job).where(Job.id == first).with_for_update())
            await start(queues=queue(global_limit=TWO), **NEVER)
            assert await Holding.begin(1) == [second]

    async def test_other_entries_of_the_meta_are_kept(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        (id,) = await add(Own.new({"account_id": 7, "region": "eu"}, meta={"own": [1]}))
        await start(queues=queue(global_limit=TWO), **NEVER)
        await Holding.begin(1)
        async with sessions() as session:
            meta = (await session.get_one(Job, id)).meta
        assert meta["own"] == [1]
        assert meta["oban_sqla_limits"]["limit"]["allowed"] == 3
        assert meta["oban_sqla_limits"]["queue"] == {
            "limit": {"id": "queue partitioned account_id=7", "by": "account_id", "key": "7"}
        }
        assert meta["partition_key"] == 'partition.own="eu" queue partitioned account_id=7'

    async def test_asyncpg_obeys_the_limits(
        self, postgres_dsn: str, prefix: str, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        pytest.importorskip("asyncpg")
        engine = async_engine(postgres_dsn, prefix, "asyncpg")
        await add(*of(1, 1, 1, 2))
        limits = {"global_limit": TWO, "rate_limit": Rate(9, per=60, burst=1)}
        oban = await start(engine, queues=queue(**limits, partition=BY_ACCOUNT), **NEVER)
        await Holding.begin(3)
        assert await executing(sessions) == {1: 2, 2: 1}
        Holding.release_all()
        await Holding.begin(4)
        await oban.stop()
        await engine.dispose()


class TestRate:
    async def test_a_rate_counts_the_starts_of_each_key(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        await add(*of(1, 1, 1, 1, 2))
        rate = {"allowed": 2, "period": 3600, "partition": BY_ACCOUNT}
        await start(queues=queue(rate_limit=rate), **NEVER)
        await Holding.begin(3)
        assert await executing(sessions) == {1: 2, 2: 1}
        Holding.release_all()
        (later,) = await add(*of(3))
        assert (await Holding.begin(4))[3] == later

    async def test_the_next_start_comes_without_a_poll(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        Holding.release_all()
        await add(*of(*[1] * 7))
        rate = Rate(2, per=0.3, burst=1)
        await start(queues=queue(rate_limit=rate, partition=BY_ACCOUNT), **NEVER)
        await Holding.begin(7)
        async with sessions() as session:
            query = select(Job.attempted_at).order_by(Job.attempted_at)
            at = [*await session.scalars(query)]
        assert all((at[n + 3] - at[n]).total_seconds() >= 0.3 for n in range(4))

    async def test_a_limit_of_all_jobs_applies_too(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        await add(*of(1, 1, 1, 2, 2, 2))
        rate = {"allowed": 2, "period": 3600, "partition": BY_ACCOUNT}
        await start(queues=queue(global_limit=3, rate_limit=rate), **NEVER)
        await Holding.begin(3)
        Holding.release(*Holding.begun[:3])
        await Holding.begin(4)
        async with sessions() as session:
            assert await session.scalar(select(func.sum(StartRow.starts))) == 4

    async def test_a_job_that_did_not_start_gives_its_permit_back(
        self, start: StartOban, sessions: Sessions, add: Add
    ) -> None:
        rate = {"allowed": 1, "period": 3600, "partition": BY_ACCOUNT}
        oban = await start(queues=queue(rate_limit=rate), **NEVER)
        with (
            hear(oban, "give_back_stop") as returns,
            paused_in_claims(oban, "partitioned") as producer,
        ):
            await add(*of(1))
            await returns.wait()
        producer.resume()
        await Holding.begin(1)

    async def test_rate_limited_holds_the_key(
        self, start: StartOban, client: Oban, sessions: Sessions, add: Add
    ) -> None:
        async def held() -> bool:
            async with sessions() as session:
                row = await session.get(RateRow, "queue partitioned account_id=1")
                return row is not None and row.held_until is not None

        await start(queues=queue(global_limit=TWO), **NEVER)
        (first,) = await add(Limited.new({"account_id": 1, "seconds": 3600}))
        await Holding.begin(1)
        Holding.release_all()
        await until(held)
        same, another = await add(*of(1, 2, worker=Limited))
        assert await Holding.begin(2) == [first, another]
        sentence = await client.why(same)
        assert sentence.startswith("queue partitioned account_id=1 is held until ")


class TestWhatOthersSee:
    async def test_why_names_the_key(self, start: StartOban, client: Oban, add: Add) -> None:
        ids = await add(*of(42, 42, 42))
        await start(queues=queue(global_limit=TWO), **NEVER)
        await Holding.begin(2)
        assert await client.why(ids[2]) == (
            "2 of 2 executing for account_id 42 in queue partitioned (jobs 1, 2)"
        )

    async def test_why_names_the_rate_of_the_key(
        self, start: StartOban, client: Oban, add: Add
    ) -> None:
        _, waiting = await add(*of("x", "x"))
        rate = {"allowed": 1, "period": 3600, "partition": BY_ACCOUNT}
        await start(queues=queue(rate_limit=rate), **NEVER)
        await Holding.begin(1)
        sentence = await client.why(waiting)
        assert sentence.startswith('the next permit of queue partitioned for account_id "x" is at ')

    async def test_the_row_of_the_producer_has_the_limits(self, start: StartOban) -> None:
        one = {"allowed": 1, "burst": True}
        rate = Rate(60, per=60)
        oban = await start(
            queues=queue(global_limit=one, rate_limit=rate, partition=BY_ACCOUNT), **NEVER
        )
        meta = oban.check_one_queue("partitioned").meta
        assert meta["global_limit"] == {"allowed": 1, "burst": True, "partition": BY_ACCOUNT}
        assert meta["rate_limit"] == {
            "allowed": 60,
            "period": 60.0,
            "partition": BY_ACCOUNT,
            "windows": [],
        }

    async def test_an_order_outlasts_a_restart(self, start: StartOban, client: Oban) -> None:
        await client.scale_queue(queue="partitioned", global_limit=TWO)
        await client.scale_queue(
            queue="partitioned",
            rate_limit={"allowed": 5, "period": 1, "partition": BY_ACCOUNT},
        )
        oban = await start(queues=queue())
        meta = oban.check_one_queue("partitioned").meta
        assert meta["global_limit"] == TWO
        assert meta["rate_limit"]["partition"] == BY_ACCOUNT
        await client.scale_queue(queue="partitioned", global_limit=3)
        await until(
            lambda: oban.check_one_queue("partitioned").meta["global_limit"] == {"allowed": 3}
        )


class TestSettings:
    def test_a_variable_sets_a_partition(self) -> None:
        queues = {"mail": {"limit": 20, "global_limit": TWO}}
        assert parse_queues(json.dumps(queues)) == queues

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"global_limit": 2, "partition": 5}, "partition must be a mapping, like"),
            ({"global_limit": 2, "partition": {"field": ["args"]}}, "partition has no 'field'"),
            ({"global_limit": 2, "partition": {"keys": ["a"]}}, "fields of partition must be of"),
            ({"global_limit": 2, "partition": {"fields": ["tags"]}}, "not 'tags'"),
            ({"global_limit": 2, "partition": {"fields": "args"}}, "must be a list of names"),
            ({"global_limit": 2, "partition": {"fields": ["args"]}}, "must name the keys of args"),
            ({"global_limit": 2, "partition": {"fields": ["args"], "keys": ["a..b"]}}, "'a..b'"),
            ({"global_limit": 2, "partition": {"fields": ["args"], "keys": [5]}}, "names, not 5"),
            ({"global_limit": 2, "partition": {"fields": ["worker"], "keys": ["a"]}}, "name that"),
            ({"partition": BY_ACCOUNT}, "give the queue a global_limit or a rate_limit"),
            ({"global_limit": {"allowed": 2, "burst": True}}, "burst needs a partition"),
            ({"global_limit": {**TWO, "burst": 2}}, "burst must be True or False"),
            ({"rate_limit": {"allowed": 2, "period": 1, "partition": 5}}, "rate_limit of queue"),
        ],
    )
    async def test_invalid_values_are_refused(
        self, engine: AsyncEngine, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            Oban(engine, queues={"q": {"limit": 1, **options}})

    async def test_a_node_needs_a_limit_of_its_own(self, engine: AsyncEngine) -> None:
        with pytest.raises(ConfigError, match="queue 'q' needs a limit"):
            Oban(engine, queues={"q": {"global_limit": TWO}})
