"""Rescue: which jobs, by what evidence, and their new states."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Executable, insert, make_url, select, text, update
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from oban_sqla import Job, JobState
from oban_sqla.migrations import upgrade
from oban_sqla.models import ProducerRow
from oban_sqla.statements.claim import FRONT, claim_of_queue
from oban_sqla.statements.heartbeat import beat, end
from oban_sqla.statements.rescue import DIED, delete_expired_rows, rescue
from tests.blocking import until_blocking
from tests.conftest import Add
from tests.factories import JobFactory
from tests.statements.conftest import Find, Run

Sessions = async_sessionmaker[AsyncSession]
Alive = Callable[..., Awaitable[UUID]]

S = JobState
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PARAMS: dict[str, Any] = {
    "batch": 100,
    "expiry": 60.0,
    "settled": 30.0,
    "rescue_after": 3600.0,
}


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


FIRST_CLAIM = ago(36000)


@pytest.fixture
def alive(run: Run) -> Alive:
    """Let a producer have sent its last heartbeat this many seconds ago."""

    async def alive(seconds: float, expiry: float = 60.0) -> UUID:
        uuid = uuid4()
        await run(beat([row(uuid)], expiry=expiry, now=ago(seconds)))
        return uuid

    return alive


@pytest.fixture(autouse=True)
async def witness(run: Run) -> UUID:
    """A producer that has been beating for an hour, so the other producers had time for a
    heartbeat, too.
    """
    uuid = uuid4()
    await run(beat([row(uuid)], expiry=60.0, now=ago(3600)))
    # Each beat since then has changed only the time.
    await run(update(ProducerRow).where(ProducerRow.uuid == uuid).values(updated_at=NOW))
    return uuid


def row(uuid: UUID) -> dict[str, Any]:
    return {"uuid": str(uuid), "name": "Oban", "node": "n", "queue": "q", "meta": {}}


def ran(uuid: UUID, *mark: str, **fields: Any) -> Job:
    """A job that a producer claimed ten hours ago; if the producer is ours, with our mark."""
    by = ["n", str(uuid), *mark]
    return JobFactory(
        **{"executing": True, "attempted_by": by, "attempted_at": ago(36000), **fields}
    )


def ours(uuid: UUID, **fields: Any) -> Job:
    return ran(uuid, "oban_sqla", **fields)


async def rescued(run: Run, **params: Any) -> list[int]:
    (found,) = await run(rescue(now=NOW), **{**PARAMS, **params})
    return sorted([*(found.rescued or ()), *(found.discarded or ()), *(found.cancelled or ())])


class TestEvidence:
    async def test_a_job_is_no_orphan_while_its_producer_lives(
        self, add: Add, run: Run, alive: Alive
    ) -> None:
        uuid = await alive(59.9)
        await add(ours(uuid), ran(uuid))
        assert await rescued(run) == []

    async def test_a_job_is_an_orphan_once_the_heartbeat_has_expired(
        self, add: Add, run: Run, alive: Alive
    ) -> None:
        dead, other = await alive(60), await alive(0)
        ids = await add(ours(dead), ran(dead, attempted_at=ago(1)), ours(other))
        assert await rescued(run) == ids[:2]

    @pytest.mark.parametrize(
        ("meta", "expires_after"),
        [
            ({"expiry": 300.0}, 300),
            # Never before our own expiry: an outage that is long for it may be short for us.
            ({"expiry": 5}, 10),
            # A row of another Oban, or one written by hand, may say anything: sixty seconds at
            # least.
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
        self, add: Add, run: Run, alive: Alive, sessions: Sessions, meta: Any, expires_after: float
    ) -> None:
        living, dead = await alive(expires_after - 0.1), await alive(expires_after)
        async with sessions.begin() as session:
            odd = update(ProducerRow).where(ProducerRow.uuid.in_([living, dead]))
            await session.execute(odd.values(meta=meta))
            await session.execute(
                update(ProducerRow)
                .where(ProducerRow.uuid.not_in([living, dead]))
                .values(meta=ProducerRow.meta.op("||")({"expiry": 10}))
            )
        _, orphan = await add(ours(living), ours(dead))
        assert await rescued(run, expiry=10.0) == [orphan]

    async def test_the_longer_expiry_applies_to_foreign_rows(
        self, add: Add, run: Run, alive: Alive, sessions: Sessions
    ) -> None:
        living, dead = await alive(299.9), await alive(300)
        async with sessions.begin() as session:
            odd = update(ProducerRow).where(ProducerRow.uuid.in_([living, dead]))
            await session.execute(odd.values(meta={}))
        _, orphan = await add(ran(living), ran(dead))
        assert await rescued(run, expiry=300.0) == [orphan]

    async def test_a_job_of_another_oban_with_a_silent_row_is_judged_by_its_age(
        self, add: Add, run: Run, alive: Alive, sessions: Sessions
    ) -> None:
        """A worker that blocks its event loop stops the heartbeats of its node, too."""
        uuid = await alive(600)
        async with sessions.begin() as session:
            await session.execute(
                update(ProducerRow).where(ProducerRow.uuid == uuid).values(meta={"limit": 10})
            )
        await alive(0)
        old, _ = await add(ran(uuid, attempted_at=ago(3600)), ran(uuid, attempted_at=ago(3599)))
        assert await rescued(run) == [old]

    async def test_without_a_row_our_jobs_are_orphans_at_any_age(self, add: Add, run: Run) -> None:
        (orphan,) = await add(ours(uuid4(), attempted_at=NOW))
        assert await rescued(run) == [orphan]

    async def test_without_a_row_jobs_of_other_obans_are_judged_by_their_age(
        self, add: Add, run: Run
    ) -> None:
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

    async def test_only_executing_jobs_are_orphans(self, add: Add, run: Run) -> None:
        others = [ours(uuid4(), state=state) for state in JobState if state is not S.EXECUTING]
        await add(*others)
        assert await rescued(run) == []


class TestClockSetBack:
    """The clock is set back by an hour, so the heartbeats of all producers are in the future."""

    @pytest.fixture(autouse=True)
    async def emptied(self, witness: UUID, run: Run) -> None:
        await run(end([witness]))

    async def test_only_jobs_of_dead_producers_are_rescued(
        self, add: Add, run: Run, alive: Alive
    ) -> None:
        living, other, dead = [await alive(-3600) for _ in range(3)]
        _, _, orphan = await add(ours(living), ours(other), ours(dead))
        assert await rescued(run) == []  # no producer has beaten since
        await run(beat([row(living)], expiry=60.0, now=NOW))
        for seconds in (0, 15, 29.9):
            (found,) = await run(rescue(now=ago(-seconds)), **PARAMS)
            assert (found.rescued, found.settled_in) == (None, pytest.approx(30 - seconds))
            for uuid in (living, other):
                await run(beat([row(uuid)], expiry=60.0, now=ago(-seconds)))
        (found,) = await run(rescue(now=ago(-30)), **PARAMS)
        assert found.rescued == [orphan]

    async def test_a_small_step_does_not_delay_the_evidence(self, run: Run, alive: Alive) -> None:
        uuid = await alive(40)
        for seconds in (25, 10, 32, 17, 2):
            await run(beat([row(uuid)], expiry=60.0, now=ago(seconds)))
        (found,) = await run(rescue(now=NOW), **PARAMS)
        assert found.settled_in == pytest.approx(-10)


class TestWitnesses:
    """If the table was emptied, or the database was away, living producers look dead."""

    async def settled(self, run: Run, alive: Alive, **params: Any) -> float | None:
        """The seconds until there is evidence. Without evidence, no job is rescued."""
        (found,) = await run(rescue(now=NOW), **{**PARAMS, **params})
        settled_in: float | None = found.settled_in
        assert (found.rescued is None) == (settled_in is None or settled_in > 0)
        return settled_in

    @pytest.fixture(autouse=True)
    async def orphans(self, add: Add, alive: Alive) -> None:
        await add(ours(uuid4()), ours(await alive(1000)), ran(uuid4()))

    @pytest.fixture(autouse=True)
    async def emptied(self, witness: UUID, run: Run) -> None:
        await run(end([witness]))

    async def test_without_a_beating_producer_there_is_no_evidence(
        self, run: Run, alive: Alive
    ) -> None:
        assert await self.settled(run, alive) is None

    async def test_a_producer_that_has_beaten_long_enough_is_evidence(
        self, run: Run, alive: Alive
    ) -> None:
        uuid = await alive(40)
        for seconds, settled_in in ((25, 15.0), (10.5, 0.5), (10, 0.0)):
            await run(beat([row(uuid)], expiry=60.0, now=ago(seconds)))
            (found,) = await run(rescue(now=ago(seconds)), **PARAMS)
            assert found.settled_in == pytest.approx(settled_in)
        assert found.rescued is not None

    async def test_a_lost_row_begins_again(self, run: Run, alive: Alive) -> None:
        """The `started_at` of the row is as before, so the row is no evidence."""
        uuid = await alive(1000)
        for seconds in range(1000, 10, -15):
            await run(beat([row(uuid)], expiry=60.0, now=ago(seconds)))
        await run(end([uuid]))
        again = {**row(uuid), "started_at": ago(1000).isoformat()}
        await run(beat([again], expiry=60.0, now=ago(10)))
        assert await self.settled(run, alive) == pytest.approx(20.0)

    @pytest.mark.parametrize(("silence", "settled_in"), [(22.5, -10.0), (22.6, 30.0)])
    async def test_a_row_silent_for_long_begins_again(
        self, run: Run, alive: Alive, silence: float, settled_in: float
    ) -> None:
        """The producer could not beat, so perhaps no producer could."""
        uuid = await alive(40)
        for seconds in (silence, 0):
            await run(beat([row(uuid)], expiry=60.0, now=ago(seconds)))
        assert await self.settled(run, alive) == pytest.approx(settled_in)

    async def test_a_silent_producer_is_no_witness(self, run: Run, alive: Alive) -> None:
        uuid = await alive(60)
        for seconds in (45, 30):
            await run(beat([row(uuid)], expiry=60.0, now=ago(seconds)))
        (found,) = await run(rescue(now=ago(7.5)), **PARAMS)
        assert found.settled_in is not None
        (found,) = await run(rescue(now=ago(7)), **PARAMS)
        assert found.settled_in is None

    async def test_a_producer_with_a_longer_expiry_is_no_witness(
        self, run: Run, alive: Alive
    ) -> None:
        uuid = await alive(60, 60.1)
        for seconds in (45, 30, 15, 0):
            await run(beat([row(uuid)], expiry=60.1, now=ago(seconds)))
        assert await self.settled(run, alive) is None
        assert await self.settled(run, alive, expiry=60.1) == pytest.approx(-30.0)

    @pytest.mark.parametrize(
        "since", [None, "long ago", -1, 1e300, [1], {"a": 1}, NOW.timestamp() + 1]
    )
    async def test_invalid_meta_of_other_programs_is_no_evidence(
        self, run: Run, alive: Alive, sessions: Sessions, since: Any
    ) -> None:
        uuid = await alive(0)
        async with sessions.begin() as session:
            meta = {"expiry": 60.0, "unbroken_since": since}
            odd = update(ProducerRow).where(ProducerRow.uuid == uuid)
            await session.execute(odd.values(meta=meta))
        assert await self.settled(run, alive) is None


class TestRescuedJobs:
    async def test_an_orphan_with_an_attempt_left_is_available_and_counted(
        self, add: Add, run: Run, find: Find
    ) -> None:
        ids = await add(ours(uuid4(), meta={"a": 1}), ours(uuid4(), meta={"rescued": 2}))
        await rescued(run)
        first, second = [await find(id) for id in ids]
        assert (first.state, first.attempt, first.meta) == (S.AVAILABLE, 1, {"a": 1, "rescued": 1})
        assert (second.state, second.meta) == (S.AVAILABLE, {"rescued": 3})
        assert first.errors == []
        assert (first.discarded_at, first.cancelled_at) == (None, None)

    async def test_an_orphan_without_attempts_is_discarded_with_a_reason(
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
    async def test_a_job_cancelled_while_it_ran_is_cancelled(
        self, add: Add, run: Run, find: Find, attempt: int
    ) -> None:
        meta = {"cancel_attempted_at": "2026-11-23T11:59:59"}
        (id,) = await add(ours(uuid4(), attempt=attempt, meta=meta))
        (found,) = await run(rescue(now=NOW), **PARAMS)
        assert (found.rescued, found.discarded, found.cancelled) == (None, None, [id])
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
    async def test_invalid_meta_of_other_programs_breaks_nothing(
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

    async def test_the_queues_of_rescued_jobs_are_notified(
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
    async def test_no_more_orphans_are_rescued_than_a_batch(self, add: Add, run: Run) -> None:
        ids = await add(*(ours(uuid4()) for _ in range(5)))
        assert await rescued(run, batch=3) == ids[:3]
        assert await rescued(run, batch=3) == ids[3:]
        assert await rescued(run, batch=3) == []

    async def test_locked_orphans_are_skipped_and_counted(
        self, add: Add, run: Run, engine: AsyncEngine
    ) -> None:
        locked, free = await add(ours(uuid4()), ours(uuid4()))
        async with engine.begin() as other:
            await other.execute(select(Job.id).where(Job.id == locked).with_for_update())
            (found,) = await run(rescue(now=NOW), **PARAMS)
            assert (found.found, found.rescued) == (2, [free])
        assert await rescued(run) == [locked]

    async def test_two_rescues_take_each_job_once(
        self, add: Add, engine: AsyncEngine, run: Run, find: Find
    ) -> None:
        ids = await add(*(ours(uuid4()) for _ in range(4)))
        async with engine.begin() as one:
            (found,) = await one.execute(rescue(now=NOW), PARAMS | {"batch": 2})
            assert sorted(found.rescued) == ids[:2]
            assert await rescued(run) == ids[2:]
        assert {(await find(id)).meta["rescued"] for id in ids} == {1}


class TestNextTime:
    async def test_a_rescue_tells_when_the_next_heartbeat_expires(
        self, run: Run, alive: Alive
    ) -> None:
        for seconds in (10, 45, 60, 1000):
            await alive(seconds)
        (found,) = await run(rescue(now=NOW), **PARAMS)
        assert (found.expired, found.next_in) == (2, 15.0)

    async def test_the_witness_alone_has_no_next_expiry(self, run: Run) -> None:
        (found,) = await run(rescue(now=NOW), **PARAMS)
        assert (found.expired, found.next_in) == (0, 60.0)


class TestExpiredRows:
    async def test_expired_rows_without_jobs_are_deleted(
        self, add: Add, run: Run, alive: Alive, sessions: Sessions, witness: UUID
    ) -> None:
        living, busy = await alive(59), await alive(60)
        await alive(60)
        (id,) = await add(ours(busy))

        async def left() -> set[UUID]:
            async with sessions() as session:
                return set(await session.scalars(select(ProducerRow.uuid)))

        await run(delete_expired_rows(now=NOW), expiry=60.0)
        assert await left() == {witness, living, busy}
        async with sessions.begin() as session:
            await session.execute(update(Job).where(Job.id == id).values(state=S.COMPLETED))
        await run(delete_expired_rows(now=NOW), expiry=60.0)
        assert await left() == {witness, living}


class TestInADatabaseOfItsOwn:
    @pytest.fixture
    def witness(self) -> Executable:
        """A row that has existed for an hour."""
        meta = {"expiry": 60.0, "unbroken_since": ago(3600).timestamp()}
        values = {"uuid": uuid4(), "node": "n", "queue": "q", "meta": meta, "updated_at": NOW}
        return insert(ProducerRow).values(values)

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

    @pytest.mark.parametrize(
        "anew",
        [{"attempt": 2, "attempted_at": FIRST_CLAIM}, {"attempt": 1, "attempted_at": NOW}],
        ids=["another attempt", "another instant"],
    )
    async def test_a_job_claimed_again_during_the_rescue_is_no_orphan(
        self, own: AsyncEngine, witness: Executable, anew: dict[str, Any]
    ) -> None:
        """Another leader rescues it, and a new node claims it, while this one looks for orphans.

        The new claim has another attempt, or, if the last one was given back, another instant.

        The snapshot of the statement is older than the row of the new claimer. The statement must
        not take the job for one whose producer has no row.
        """
        new = str(uuid4())
        claim = {"queue_name": "default", "limit": 1, "node_name": "new", "producer": new}
        pause = """
            ALTER TABLE oban_producers RENAME TO real_producers;
            CREATE VIEW oban_producers AS
                SELECT p.* FROM real_producers p, (SELECT pg_advisory_xact_lock_shared(1)) AS pause
        """
        async with AsyncSession(own) as session:
            session.add(ours(uuid4(), attempted_at=FIRST_CLAIM))
            await session.commit()
        async with own.connect() as slow, own.connect() as other:
            await other.execute(witness)
            for statement in pause.split(";"):
                await other.execute(text(statement))
            await other.execute(text("SELECT pg_advisory_lock(1)"))
            looking = asyncio.create_task(slow.execute(rescue(prefix="public", now=NOW), PARAMS))
            await until_blocking(other)
            await other.execute(update(Job).values(state=S.AVAILABLE))
            await other.execute(claim_of_queue(now=NOW), {**FRONT, **claim})
            await other.execute(update(Job).values(anew))
            await other.execute(text("SELECT pg_advisory_unlock(1)"))
            found = (await looking).one()
            assert (found.found, found.rescued) == (1, None)
            job = (await other.execute(select(Job.state, Job.attempted_by))).one()
            assert tuple(job) == (S.EXECUTING, ["new", new, "oban_sqla"])

    async def test_a_state_that_another_program_added_is_ignored(
        self, own: AsyncEngine, witness: Executable
    ) -> None:
        async with AsyncSession(own) as session:
            session.add_all([ours(uuid4()), ours(uuid4())])
            await session.commit()
        async with own.connect() as connection:
            await connection.execute(text("ALTER TYPE oban_job_state ADD VALUE 'odd'"))
            await connection.execute(text("UPDATE oban_jobs SET state = 'odd' WHERE id = 1"))
            await connection.execute(witness)
            found = (await connection.execute(rescue(prefix="public", now=NOW), PARAMS)).one()
            assert (found.found, found.rescued) == (1, [2])
            states = await connection.execute(text("SELECT state::text FROM oban_jobs ORDER BY id"))
            assert states.scalars().all() == ["odd", "available"]
