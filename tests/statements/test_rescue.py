"""Rescue: whose jobs, on what evidence, and what becomes of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url, select, text, update
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from oban_sqla import Job, JobState
from oban_sqla.migrations import upgrade
from oban_sqla.models import Producer
from oban_sqla.statements.acknowledge import outcomes
from oban_sqla.statements.claim import acknowledge_and_claim
from oban_sqla.statements.heartbeat import beat
from oban_sqla.statements.rescue import DIED, bury, rescue
from tests.factories import JobFactory
from tests.runtime.conftest import until
from tests.statements.conftest import Add, Find, Run

Sessions = async_sessionmaker[AsyncSession]
Alive = Callable[..., Awaitable[UUID]]

S = JobState
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PARAMS: dict[str, Any] = {
    "batch": 100,
    "expiry": 60.0,
    "fresh": 30.0,
    "witnesses": [],
    "rescue_after": 3600.0,
}


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.fixture
def alive(run: Run) -> Alive:
    """Have a producer give its last sign of life so many seconds ago."""

    async def alive(seconds: float, meta: Any = None) -> UUID:
        uuid = uuid4()
        meta = {"expiry": 60.0} if meta is None else meta
        row = {"uuid": str(uuid), "name": "Oban", "node": "n", "queue": "q", "meta": meta}
        await run(beat([row], now=ago(seconds)))
        return uuid

    return alive


def ran(uuid: UUID, *mark: str, **fields: Any) -> Job:
    """A job that a producer claimed ten hours ago; one of ours, with the mark."""
    by = ["n", str(uuid), *mark]
    return JobFactory(
        **{"executing": True, "attempted_by": by, "attempted_at": ago(36000), **fields}
    )


def ours(uuid: UUID, **fields: Any) -> Job:
    return ran(uuid, "oban_sqla", **fields)


async def rescued(run: Run, **params: Any) -> list[int]:
    (row,) = await run(rescue(now=NOW), **{**PARAMS, **params})
    return sorted([*(row.rescued or ()), *(row.discarded or ()), *(row.cancelled or ())])


class TestEvidence:
    async def test_while_its_producer_lives_no_job_is_an_orphan_however_old(
        self, add: Add, run: Run, alive: Alive
    ) -> None:
        uuid = await alive(59.9)
        await add(ours(uuid), ran(uuid))
        assert await rescued(run) == []

    async def test_when_its_heartbeat_has_expired_it_is_one(
        self, add: Add, run: Run, alive: Alive
    ) -> None:
        dead, other = await alive(60), await alive(0)
        ids = await add(ours(dead), ran(dead, attempted_at=ago(1)), ours(other))
        assert await rescued(run) == ids[:2]

    @pytest.mark.parametrize(
        ("meta", "expires_after"),
        [
            ({"expiry": 5}, 5),
            ({"expiry": 300.0}, 300),
            # What a row of another Oban, or somebody's hand, says: sixty seconds at the least.
            ({}, 60),
            ({"expiry": None}, 60),
            ({"expiry": "5"}, 60),
            ({"expiry": -1}, 60),
            ({"expiry": 1e300}, 60),
            ({"expiry": {"a": 1}}, 60),
            ([5], 60),
            (5, 60),
        ],
    )
    async def test_a_producer_expires_as_its_row_says(
        self, add: Add, run: Run, alive: Alive, meta: Any, expires_after: float
    ) -> None:
        living, dead = await alive(expires_after - 0.1, meta), await alive(expires_after, meta)
        _, orphan = await add(ours(living), ours(dead))
        assert await rescued(run, expiry=10.0) == [orphan]

    async def test_the_own_expiry_holds_for_foreign_rows_if_it_is_longer(
        self, add: Add, run: Run, alive: Alive
    ) -> None:
        living, dead = await alive(299.9, {}), await alive(300, {})
        _, orphan = await add(ran(living), ran(dead))
        assert await rescued(run, expiry=300.0) == [orphan]

    async def test_without_a_row_those_of_ours_are_orphans_at_any_age(
        self, add: Add, run: Run
    ) -> None:
        (orphan,) = await add(ours(uuid4(), attempted_at=NOW))
        assert await rescued(run) == [orphan]

    async def test_without_a_row_the_age_of_others_has_to_tell(self, add: Add, run: Run) -> None:
        uuid = uuid4()
        ids = await add(
            ran(uuid, attempted_at=ago(3600)),
            ran(uuid, attempted_at=None, scheduled_at=ago(3600)),
            JobFactory(executing=True, attempted_by=[], attempted_at=ago(3600)),
            JobFactory(executing=True, attempted_by=["not", "a uuid"], attempted_at=ago(3600)),
            ran(uuid, attempted_at=ago(3599)),
            ran(uuid, "elixir", attempted_at=ago(3599)),
        )
        assert await rescued(run) == ids[:4]

    async def test_only_executing_jobs_are(self, add: Add, run: Run) -> None:
        others = [ours(uuid4(), state=state) for state in JobState if state is not S.EXECUTING]
        await add(*others)
        assert await rescued(run) == []


class TestWitnesses:
    """When the table was emptied, or the database away, those who are alive look dead."""

    async def test_with_all_of_them_there_is_evidence(
        self, add: Add, run: Run, alive: Alive
    ) -> None:
        witnesses = [await alive(29.9), await alive(0)]
        (orphan,) = await add(ours(uuid4()))
        assert await rescued(run, witnesses=witnesses) == [orphan]

    @pytest.mark.parametrize("silent_for", [None, 30.0])
    async def test_without_one_of_them_there_is_none(
        self, add: Add, run: Run, alive: Alive, silent_for: float | None
    ) -> None:
        lost = uuid4() if silent_for is None else await alive(silent_for)
        await add(ours(uuid4()), ours(await alive(1000)), ran(uuid4()))
        (row,) = await run(rescue(now=NOW), **{**PARAMS, "witnesses": [await alive(0), lost]})
        assert (row.witnessed, row.rescued, row.found) == (False, None, 0)


class TestWhatBecomesOfThem:
    async def test_with_an_attempt_left_it_is_available_and_that_is_counted(
        self, add: Add, run: Run, find: Find
    ) -> None:
        ids = await add(ours(uuid4(), meta={"a": 1}), ours(uuid4(), meta={"rescued": 2}))
        await rescued(run)
        first, second = [await find(id) for id in ids]
        assert (first.state, first.attempt, first.meta) == (S.AVAILABLE, 1, {"a": 1, "rescued": 1})
        assert (second.state, second.meta) == (S.AVAILABLE, {"rescued": 3})
        assert first.errors == []
        assert (first.discarded_at, first.cancelled_at) == (None, None)

    async def test_with_none_left_it_is_discarded_with_a_reason(
        self, add: Add, run: Run, find: Find
    ) -> None:
        before = {"attempt": 1, "at": "2026-01-01T00:00:00.000000Z", "error": "boom"}
        (id,) = await add(ours(uuid4(), attempt=2, max_attempts=2, errors=[before]))
        await rescued(run)
        job = await find(id)
        assert (job.state, job.discarded_at, job.meta) == (S.DISCARDED, NOW, {})
        assert job.errors == [
            before,
            {"attempt": 2, "at": "2026-11-23T12:00:00.000000Z", "error": DIED},
        ]

    @pytest.mark.parametrize("attempt", [1, 20])
    async def test_what_was_cancelled_while_it_ran_is_cancelled(
        self, add: Add, run: Run, find: Find, attempt: int
    ) -> None:
        meta = {"cancel_attempted_at": "2026-11-23T11:59:59"}
        (id,) = await add(ours(uuid4(), attempt=attempt, meta=meta))
        (row,) = await run(rescue(now=NOW), **PARAMS)
        assert (row.rescued, row.discarded, row.cancelled) == (None, None, [id])
        job = await find(id)
        assert (job.state, job.cancelled_at, job.discarded_at) == (S.CANCELLED, NOW, None)
        assert (job.meta, job.errors) == (meta, [])

    @pytest.mark.parametrize(
        ("meta", "after"),
        [
            ("[1]", "[1]"),
            ('["cancel_attempted_at"]', '["cancel_attempted_at"]'),
            ('"cancel_attempted_at"', '"cancel_attempted_at"'),
            ("7", "7"),
            ("null", "null"),
            ('{"rescued": "often"}', '{"rescued": 1}'),
            ('{"rescued": null}', '{"rescued": 1}'),
            ('{"rescued": [1]}', '{"rescued": 1}'),
            ('{"cancel_attempted_at": null}', '{"rescued": 1, "cancel_attempted_at": null}'),
        ],
    )
    async def test_what_others_wrote_there_does_not_break_it(
        self, add: Add, run: Run, connection: AsyncConnection, prefix: str, meta: str, after: str
    ) -> None:
        ids = await add(ours(uuid4()), ours(uuid4(), attempt=20))
        jobs = f'"{prefix}".oban_jobs'
        change = f"UPDATE {jobs} SET meta = CAST(:meta AS jsonb), errors = '{{\"odd\": true}}'"
        await connection.execute(text(change), {"meta": meta})
        assert await rescued(run) == ids
        query = text(f"SELECT state::text, meta, errors FROM {jobs} ORDER BY id")
        first, second = (await connection.execute(query)).all()
        assert (first.state, first.meta) == ("available", json.loads(after))
        assert (second.state, second.meta) == ("discarded", json.loads(meta))
        assert [entry["error"] for entry in second.errors] == [DIED]

    async def test_the_queues_of_what_is_available_again_are_told(
        self, add: Add, run: Run, postgres_dsn: str, prefix: str
    ) -> None:
        await add(
            ours(uuid4(), queue="b"),
            ours(uuid4(), queue="a"),
            ours(uuid4(), queue="a"),
            ours(uuid4(), queue="spent", attempt=20),
        )
        async with await psycopg.AsyncConnection.connect(
            postgres_dsn, autocommit=True
        ) as listening:
            channel = sql.Identifier(f"{prefix}.oban_insert")
            await listening.execute(sql.SQL("LISTEN {}").format(channel))
            await run(rescue(prefix=prefix, now=NOW), **PARAMS)
            told = [
                json.loads(news.payload)
                async for news in listening.notifies(timeout=20.0, stop_after=2)
            ]
        assert sorted(news["queue"] for news in told) == ["a", "b"]


class TestBatches:
    async def test_no_more_than_a_batch_at_once(self, add: Add, run: Run) -> None:
        ids = await add(*(ours(uuid4()) for _ in range(5)))
        assert await rescued(run, batch=3) == ids[:3]
        assert await rescued(run, batch=3) == ids[3:]
        assert await rescued(run, batch=3) == []

    async def test_jobs_that_somebody_has_locked_are_left_and_counted(
        self, add: Add, run: Run, engine: AsyncEngine
    ) -> None:
        locked, free = await add(ours(uuid4()), ours(uuid4()))
        async with engine.begin() as other:
            await other.execute(select(Job.id).where(Job.id == locked).with_for_update())
            (row,) = await run(rescue(now=NOW), **PARAMS)
            assert (row.found, row.rescued) == (2, [free])
        assert await rescued(run) == [locked]

    async def test_two_at_once_rescue_each_job_once(
        self, add: Add, engine: AsyncEngine, run: Run, find: Find
    ) -> None:
        ids = await add(*(ours(uuid4()) for _ in range(4)))
        async with engine.begin() as one:
            (row,) = await one.execute(rescue(now=NOW), PARAMS | {"batch": 2})
            assert sorted(row.rescued) == ids[:2]
            assert await rescued(run) == ids[2:]
        assert {(await find(id)).meta["rescued"] for id in ids} == {1}


class TestNextTime:
    async def test_it_tells_when_the_next_heartbeat_expires(self, run: Run, alive: Alive) -> None:
        for seconds in (10, 45, 60, 1000):
            await alive(seconds)
        await alive(3, {"expiry": 8})
        (row,) = await run(rescue(now=NOW), **PARAMS)
        assert (row.expired, row.next_in) == (2, 5.0)

    async def test_nothing_without_producers(self, run: Run) -> None:
        (row,) = await run(rescue(now=NOW), **PARAMS)
        assert (row.witnessed, row.expired, row.next_in) == (True, 0, None)


class TestBurying:
    async def test_expired_rows_go_when_nothing_is_left_of_them(
        self, add: Add, run: Run, alive: Alive, sessions: Sessions
    ) -> None:
        living, gone, busy = await alive(59), await alive(60), await alive(60)
        (id,) = await add(ours(busy))

        async def left() -> set[UUID]:
            async with sessions() as session:
                return set(await session.scalars(select(Producer.uuid)))

        await run(bury(now=NOW), expiry=60.0)
        assert await left() == {living, busy}
        async with sessions.begin() as session:
            await session.execute(update(Job).where(Job.id == id).values(state=S.COMPLETED))
        await run(bury(now=NOW), expiry=60.0)
        assert await left() == {living}
        assert gone not in await left()


class TestInADatabaseOfItsOwn:
    @pytest.fixture
    async def own(self, database_dsn: str) -> AsyncIterator[AsyncEngine]:
        """An engine in autocommit, on tables that the test may change."""
        engine = create_async_engine(
            make_url(database_dsn).set(drivername="postgresql+psycopg"),
            isolation_level="AUTOCOMMIT",
        )
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
        yield engine
        await engine.dispose()

    async def test_a_job_that_was_claimed_anew_meanwhile_is_no_orphan_any_more(
        self, own: AsyncEngine
    ) -> None:
        """Another leader rescues it, and a new node claims it, while this one looks for orphans.

        What the statement sees is older than the new claimer, which has no row there: it must not
        take the job for one of a producer that has none.
        """
        new = str(uuid4())
        claim = {"queue_name": "default", "limit": 1, "node_name": "new", "producer": new}
        pause = """
            ALTER TABLE oban_producers RENAME TO real_producers;
            CREATE VIEW oban_producers AS
                SELECT p.* FROM real_producers p, (SELECT pg_advisory_xact_lock_shared(1)) AS pause
        """
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        async with AsyncSession(own) as session:
            session.add(ours(uuid4()))
            await session.commit()
        async with own.connect() as slow, own.connect() as other:
            dead = {"uuid": str(uuid4()), "name": "", "node": "", "queue": "", "meta": {}}
            await other.execute(beat([dead]))
            for statement in pause.split(";"):
                await other.execute(text(statement))
            await other.execute(text("SELECT pg_advisory_lock(1)"))
            looking = asyncio.create_task(slow.execute(rescue(prefix="public", now=NOW), PARAMS))

            async def is_looking() -> bool:
                return bool(await other.scalar(waiting))

            await until(is_looking)
            await other.execute(update(Job).values(state=S.AVAILABLE))
            await other.execute(acknowledge_and_claim(now=NOW), {**outcomes([]), **claim})
            await other.execute(text("SELECT pg_advisory_unlock(1)"))
            row = (await looking).one()
            assert (row.found, row.rescued) == (1, None)
            found = (await other.execute(select(Job.state, Job.attempt, Job.attempted_by))).one()
            assert tuple(found) == (S.EXECUTING, 2, ["new", new, "oban_sqla"])

    async def test_a_state_that_others_added_is_passed_by(self, own: AsyncEngine) -> None:
        async with AsyncSession(own) as session:
            session.add_all([ours(uuid4()), ours(uuid4())])
            await session.commit()
        async with own.connect() as connection:
            await connection.execute(text("ALTER TYPE oban_job_state ADD VALUE 'odd'"))
            await connection.execute(text("UPDATE oban_jobs SET state = 'odd' WHERE id = 1"))
            row = (await connection.execute(rescue(prefix="public", now=NOW), PARAMS)).one()
            assert (row.found, row.rescued) == (1, [2])
            states = await connection.execute(text("SELECT state::text FROM oban_jobs ORDER BY id"))
            assert states.scalars().all() == ["odd", "available"]
