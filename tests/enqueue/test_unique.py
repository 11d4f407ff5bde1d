"""Unique jobs: through each kind of `conn`, under concurrent enqueues, in all states."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Table, event, func, insert, inspect, select, update
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    sessionmaker,
)

from oban_sqla import Job, JobState, Oban, ObanError, Unique, Worker
from oban_sqla.models.unique import ENTRY
from oban_sqla.statements.stage import stage
from tests import models_as_arguments as models
from tests.blocking import until_blocking
from tests.databases import User, async_engine
from tests.enqueue.conftest import Listener, Observer
from tests.enqueue.conn_kinds import CONN_KINDS, MAIN_KINDS, ConnKind, ending_badly

Sessions = async_sessionmaker[AsyncSession]

SOON = datetime(2040, 5, 17, 8, 30, 15, 123456, tzinfo=UTC)
LATER = SOON + timedelta(days=1)


class Sync(Worker, name="tests.Sync", unique=True):
    async def process(self, job: Job) -> None: ...


class Index(
    Worker,
    name="tests.Index",
    queue="search",
    unique=Unique(keys=["page"], states="incomplete", replace=["args", "scheduled_at"]),
):
    """A worker with a debounce."""

    async def process(self, job: Job) -> None: ...


class Base(DeclarativeBase): ...


class Import(Base):
    """A row that refers to jobs."""

    __tablename__ = "unique_import"
    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int | None] = mapped_column(ForeignKey(Job.id))
    job: Mapped[Job | None] = relationship()
    jobs: Mapped[list[Job]] = relationship(
        secondary=Table(
            "unique_import_jobs",
            Base.metadata,
            Column("import_id", ForeignKey("unique_import.id"), primary_key=True),
            Column("job_id", ForeignKey(Job.id), primary_key=True),
        )
    )


@pytest.fixture
def oban(engine: AsyncEngine) -> Oban:
    """An instance that was never started, and knows the schema."""
    return Oban(engine)


async def test_a_job_that_ends_before_its_replacement_is_kept(
    engine: AsyncEngine, oban: Oban
) -> None:
    """The job ends while the duplicate that found it waits for the lock of its row."""
    replacing = Unique(
        fields=["worker"],
        states="incomplete",
        replace={"available": ["args"], "completed": ["args"]},
    )
    first = await oban.enqueue(Index.new({"v": 1}, unique=replacing))
    async with engine.begin() as ending:
        await ending.execute(select(Job.id).where(Job.id == first.id).with_for_update())
        enqueuing = asyncio.create_task(oban.enqueue(Index.new({"v": 2}, unique=replacing)))
        await until_blocking(ending)
        await ending.execute(update(Job).values(state=JobState.COMPLETED))
    new = await enqueuing
    assert not new.conflict
    async with AsyncSession(engine) as session:
        jobs = (await session.scalars(select(Job).order_by(Job.id))).all()
        assert [(job.id, job.args["v"]) for job in jobs] == [(first.id, 1), (new.id, 2)]


@pytest.mark.parametrize("kind", CONN_KINDS, indirect=True)
class TestEveryConn:
    async def test_the_first_of_many_duplicates_is_inserted(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        jobs = [Sync.new({"n": n % 3}) for n in range(9)] + [Sync.new({"n": 7}, unique=False)]
        await oban.enqueue_many(jobs, conn=kind.conn)
        await kind.flush()
        facts = [(job.id, job.conflict) for job in jobs]
        await kind.commit()
        ids = {row["args"]["n"]: row["id"] for row in await observer.jobs()}
        assert len(ids) == 4
        expected = [(ids[n % 3], n > 2) for n in range(9)]
        assert facts == [*expected, (ids[7], False)]


@pytest.mark.parametrize("kind", MAIN_KINDS, indirect=True)
class TestMainKinds:
    async def test_a_duplicate_becomes_the_existing_job(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        first = await oban.enqueue(Sync.new({"n": 1}, priority=3))
        again = await oban.enqueue(Sync.new({"n": 1}, priority=5), conn=kind.conn)
        other = await oban.enqueue(Sync.new({"n": 2}), conn=kind.conn)
        await kind.flush()
        assert (again.conflict, again.id, again.priority) == (True, first.id, 3)
        assert again.inserted_at == first.inserted_at
        assert isinstance(again.state, JobState)
        assert (other.conflict, other.id == first.id) == (False, False)
        await kind.commit()
        assert await observer.args() == [{"n": 1}, {"n": 2}]

    async def test_a_duplicate_does_no_harm_to_the_transaction(
        self, kind: ConnKind, oban: Oban, observer: Observer, prefix: str
    ) -> None:
        await oban.enqueue(Sync.new({"n": 1}))
        await kind.run(f"INSERT INTO {prefix}.users (name) VALUES ('ann')")
        await oban.enqueue(Sync.new({"n": 1}), conn=kind.conn)
        await kind.flush()
        await kind.run(f"INSERT INTO {prefix}.users (name) VALUES ('bob')")
        await kind.commit()
        assert await observer.users() == ["ann", "bob"]
        assert await observer.args() == [{"n": 1}]

    async def test_a_rolled_back_job_conflicts_with_no_job(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        async with ending_badly(kind.savepoint()):
            gone = await oban.enqueue(Sync.new({"n": 1}), conn=kind.conn)
            await kind.flush()
        job = await oban.enqueue(Sync.new({"n": 1}), conn=kind.conn)
        await kind.flush()
        assert (job.conflict, gone.conflict) == (False, False)
        await kind.commit()
        assert await observer.args() == [{"n": 1}]

    async def test_a_duplicate_replaces_the_fields_of_its_rules(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        first = await oban.enqueue(Index.new({"page": 1, "v": 1}, scheduled_at=SOON, priority=2))
        new = Index.new({"page": 1, "v": 2}, scheduled_at=LATER, priority=4, tags=["x"])
        await oban.enqueue(new, conn=kind.conn)
        await kind.flush()
        assert (new.conflict, new.id, new.args) == (True, first.id, {"page": 1, "v": 2})
        assert (new.scheduled_at, new.priority, new.tags) == (LATER, 2, [])
        await kind.commit()
        [row] = await observer.jobs()
        assert (row["args"], row["priority"]) == ({"page": 1, "v": 2}, 2)
        assert row["scheduled_at"] == LATER.replace(tzinfo=None)

    async def test_a_duplicate_that_is_enqueued_again_has_its_own_values(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        async with ending_badly(kind.savepoint()):
            await oban.enqueue(Sync.new({"n": 1}, priority=1), conn=kind.conn)
            job = await oban.enqueue(Sync.new({"n": 1}, priority=2), conn=kind.conn)
            await kind.flush()
            assert job.conflict
        await oban.enqueue(job, conn=kind.conn)
        await kind.flush()
        assert not job.conflict
        await kind.commit()
        assert [row["priority"] for row in await observer.jobs()] == [2]


class TestConcurrent:
    @pytest.mark.parametrize("turns", [20, pytest.param(500, marks=pytest.mark.torture)])
    async def test_each_key_has_one_job_of_twenty_connections(
        self, postgres_dsn: str, prefix: str, observer: Observer, turns: int
    ) -> None:
        engine = async_engine(postgres_dsn, prefix, pool_size=20)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        seen: dict[int, set[int]] = {n: set() for n in range(50)}
        new: list[int] = []

        async def enqueue(connection: int) -> None:
            for turn in range(turns):
                n = (turn * 7 + connection) % 50
                async with sessions.begin() as session:
                    job = await Sync.enqueue({"n": n}, conn=session)
                seen[n].add(job.id)
                if not job.conflict:
                    new.append(job.id)

        await asyncio.gather(*(enqueue(connection) for connection in range(20)))
        await engine.dispose()
        rows = await observer.jobs()
        assert sorted(row["args"]["n"] for row in rows) == list(range(50))
        assert sorted(new) == [row["id"] for row in rows]
        assert all(len(ids) == 1 for ids in seen.values())

    async def test_batches_in_any_order_do_not_deadlock(
        self, oban: Oban, engine: AsyncEngine, observer: Observer
    ) -> None:
        async def enqueue(start: int) -> list[Job]:
            return await oban.enqueue_many(
                Sync.new({"n": (start * 37 + n) % 100}) for n in range(100)
            )

        batches = await asyncio.gather(*(enqueue(start) for start in range(8)))
        ids = [row["id"] for row in await observer.jobs()]
        assert len(ids) == 100
        assert sum(not job.conflict for jobs in batches for job in jobs) == 100
        assert all(sorted(job.id for job in jobs) == ids for jobs in batches)

    async def test_a_duplicate_waits_for_the_transaction_of_the_first_job(
        self, sessions: Sessions, observer: Observer
    ) -> None:
        async with sessions() as session, sessions() as second:
            await Sync.enqueue({"n": 1}, conn=session)
            await session.flush()
            job = await Sync.enqueue({"n": 1}, conn=second)
            waiting = asyncio.create_task(second.flush())
            await session.rollback()
            await waiting
            assert not job.conflict
            await second.commit()
        assert len(await observer.jobs()) == 1


class TestWhatIsCompared:
    @pytest.mark.parametrize(
        ("unique", "given"),
        [
            (Unique(), {"priority": 1, "tags": ["x"], "meta": {"a": 1}, "scheduled_at": SOON}),
            (Unique(fields=["worker"]), {"queue": "other"}),
            (Unique(fields=["meta"], keys=["a"]), {"meta": {"a": 0, "b": 2}, "queue": "other"}),
        ],
    )
    async def test_jobs_that_agree_in_the_fields_are_duplicates(
        self, oban: Oban, unique: Unique, given: Any
    ) -> None:
        first = await oban.enqueue(Sync.new({"n": 1}, meta={"a": 0, "b": 1}, unique=unique))
        again = Sync.new({"n": 1}, **{"meta": {"a": 0, "b": 1}, **given}, unique=unique)
        await oban.enqueue(again)
        assert (again.conflict, again.id) == (True, first.id)

    @pytest.mark.parametrize(
        ("unique", "args", "given"),
        [
            (Unique(), {"n": 2}, {}),
            (Unique(), {"n": 1}, {"queue": "other"}),
            (Unique(), {"n": 1.5}, {}),
            (Unique(), {"n": "1"}, {}),
            (Unique(keys=["n"]), {"m": 1}, {}),
            (Unique(fields=["args", "meta"]), {"n": 1}, {"meta": {"a": 1}}),
        ],
    )
    async def test_jobs_that_differ_in_a_field_are_no_duplicates(
        self, oban: Oban, unique: Unique, args: Any, given: Any
    ) -> None:
        await oban.enqueue(Sync.new({"n": 1}, unique=unique))
        other = await oban.enqueue(Sync.new(args, **given, unique=unique))
        assert not other.conflict

    async def test_an_option_of_the_job_goes_before_that_of_the_worker(self, oban: Oban) -> None:
        jobs = [Sync.new({"n": 1}, unique=False) for _ in range(2)]
        await oban.enqueue_many(jobs)
        assert jobs[0].id != jobs[1].id
        assert not any(ENTRY in job.meta for job in jobs)

    async def test_a_job_made_without_a_worker_may_be_unique(self, oban: Oban) -> None:
        first = await oban.enqueue(Job("tests.Sync", {"n": 1}, unique=True))
        again = await oban.enqueue(Job("tests.Sync", {"n": 1}, unique=True))
        assert (again.conflict, again.id) == (True, first.id)

    async def test_rows_among_the_arguments_are_compared_by_their_keys(
        self, sessions: Sessions, observer: Observer
    ) -> None:
        async with sessions.begin() as session:
            ann, bob = User(name="ann"), User(name="bob")
            session.add_all([ann, bob])
            jobs = [await Sync.enqueue({"user": user}, conn=session) for user in (ann, bob, ann)]
        assert [job.conflict for job in jobs] == [False, False, True]
        assert jobs[2].id == jobs[0].id
        assert len(await observer.jobs()) == 2

    async def test_the_unique_key_in_a_copied_meta_is_ignored(self, oban: Oban) -> None:
        first = await oban.enqueue(Sync.new({"n": 1}))
        other = await oban.enqueue(Sync.new({"n": 2}, unique=False, meta=first.meta))
        assert not other.conflict
        assert ENTRY not in other.meta


async def move(sessions: Sessions, job: Job, **values: Any) -> None:
    async with sessions.begin() as session:
        await session.execute(update(Job).where(Job.id == job.id).values(**values))


class TestWhileItCounts:
    @pytest.mark.parametrize("state", JobState)
    async def test_only_jobs_in_the_states_are_compared(
        self, oban: Oban, sessions: Sessions, state: JobState
    ) -> None:
        first = await oban.enqueue(Sync.new({"n": 1}))
        await move(sessions, first, state=state)
        again = await oban.enqueue(Sync.new({"n": 1}))
        counts = state not in (JobState.CANCELLED, JobState.DISCARDED)
        assert again.conflict is counts
        if counts:
            assert again.state is state

    async def test_a_new_job_outside_the_states_holds_no_key(self, oban: Oban) -> None:
        unique = Unique(states=["scheduled"])
        jobs = [Sync.new({"n": 1}, unique=unique) for _ in range(2)]
        jobs += [Sync.new({"n": 1}, unique=unique, scheduled_at=SOON) for _ in range(2)]
        await oban.enqueue_many(jobs)
        assert [job.conflict for job in jobs] == [False, False, False, True]

    async def test_only_jobs_of_the_period_are_compared(
        self, oban: Oban, sessions: Sessions
    ) -> None:
        unique = Unique(period=timedelta(minutes=5))
        first = await oban.enqueue(Sync.new({"n": 1}, unique=unique))
        await move(sessions, first, inserted_at=first.inserted_at - timedelta(minutes=4))
        assert (await oban.enqueue(Sync.new({"n": 1}, unique=unique))).conflict
        await move(sessions, first, inserted_at=first.inserted_at - timedelta(minutes=6))
        assert not (await oban.enqueue(Sync.new({"n": 1}, unique=unique))).conflict

    async def test_the_period_begins_when_it_is_enqueued(self, sessions: Sessions) -> None:
        async with sessions.begin() as session:
            began = await session.scalar(select(func.now()))
            job = await Sync.enqueue({"n": 1}, conn=session)
            await session.flush()
            assert began is not None
            assert job.inserted_at > began


class TestMoves:
    async def test_a_retried_job_gives_up_its_key_to_a_duplicate(
        self, oban: Oban, observer: Observer
    ) -> None:
        first = await oban.enqueue(Sync.new({"n": 1}))
        plain = await oban.enqueue(Sync.new({"n": 5}, unique=False))
        await oban.cancel_jobs([first, plain])
        second = await oban.enqueue(Sync.new({"n": 1}))
        assert not second.conflict
        assert await oban.retry_jobs([first, plain]) == 2
        assert [row["state"] for row in await observer.jobs()] == ["available"] * 3
        again = await oban.enqueue(Sync.new({"n": 1}))
        assert again.id == second.id

    async def test_staging_a_batch_never_fails(
        self, oban: Oban, sessions: Sessions, observer: Observer
    ) -> None:
        unique = Unique(states=["available", "scheduled", "executing"])
        jobs = [await oban.enqueue(Sync.new({"n": n}, unique=unique)) for n in range(3)]
        for job in jobs:
            await move(sessions, job, state=JobState.RETRYABLE)
        rival = await oban.enqueue(Sync.new({"n": 1}, unique=unique))
        async with sessions.begin() as session:
            staged = (await session.execute(stage(), {"batch": 100})).one().staged
        assert (rival.conflict, staged) == (False, 3)
        assert [row["state"] for row in await observer.jobs()] == ["available"] * 4

    async def test_a_job_that_never_left_its_states_keeps_its_key(
        self, oban: Oban, sessions: Sessions
    ) -> None:
        first = await oban.enqueue(Sync.new({"n": 1}))
        for state in (JobState.EXECUTING, JobState.RETRYABLE, JobState.AVAILABLE):
            await move(sessions, first, state=state)
        await move(sessions, first, state=JobState.COMPLETED)
        assert await oban.retry_jobs(first) == 1
        assert (await oban.enqueue(Sync.new({"n": 1}))).id == first.id

    async def test_a_new_meta_keeps_the_key(self, oban: Oban) -> None:
        first = await oban.enqueue(Sync.new({"n": 1}, meta={"a": 1}))
        await oban.update_jobs(first, {"meta": {"b": 2}})
        again = await oban.enqueue(Sync.new({"n": 1}))
        assert again.id == first.id
        assert again.meta == {"b": 2, ENTRY: first.meta[ENTRY]}


class TestReplace:
    async def test_the_state_of_the_existing_job_decides_what_is_replaced(
        self, oban: Oban, sessions: Sessions
    ) -> None:
        unique = Unique(
            fields=["worker"], replace={"scheduled": ["args"], JobState.EXECUTING: ["priority"]}
        )
        first = await oban.enqueue(Sync.new({"n": 1}, unique=unique, scheduled_at=SOON))

        async def again(n: int) -> tuple[Any, int]:
            job = await oban.enqueue(Sync.new({"n": n}, unique=unique, priority=n))
            assert job.id == first.id
            return job.args["n"], job.priority

        assert await again(2) == (2, 0)
        await move(sessions, first, state=JobState.EXECUTING)
        assert await again(3) == (2, 3)
        await move(sessions, first, state=JobState.COMPLETED)
        assert await again(4) == (2, 3)

    async def test_each_replaceable_field_is_replaced(self, oban: Oban, observer: Observer) -> None:
        names = ["args", "max_attempts", "meta", "priority", "queue", "scheduled_at", "tags"]
        unique = Unique(fields=["worker"], replace=[*names, "worker"])
        first = await oban.enqueue(Sync.new({"n": 1}, unique=unique, meta={"a": 1}))
        given = {"queue": "q", "priority": 7, "max_attempts": 3, "tags": ["t"], "meta": {"b": 2}}
        await oban.enqueue(Sync.new({"n": 2}, unique=unique, scheduled_at=SOON, **given))
        [row] = await observer.jobs()
        assert {name: row[name] for name in given} == {
            **given,
            "meta": {"b": 2, ENTRY: first.meta[ENTRY]},
        }
        assert (row["args"], row["state"]) == ({"n": 2}, "scheduled")
        assert row["scheduled_at"] == SOON.replace(tzinfo=None)

    async def test_a_time_moves_the_job_and_is_announced(
        self, oban: Oban, listener: Listener
    ) -> None:
        first = await oban.enqueue(Index.new({"page": 1}))
        await listener.heard()
        later = await oban.enqueue(Index.new({"page": 1}, scheduled_at=SOON))
        assert (later.id, later.state) == (first.id, JobState.SCHEDULED)
        assert await listener.heard() == [("oban_schedule", {"at": SOON.isoformat()})]
        now = await oban.enqueue(Index.new({"page": 1}))
        assert (now.id, now.state) == (first.id, JobState.AVAILABLE)
        assert await listener.heard() == [("oban_insert", {"queue": "search"})]

    async def test_a_duplicate_that_replaces_nothing_is_not_announced(
        self, oban: Oban, listener: Listener
    ) -> None:
        await oban.enqueue(Sync.new({"n": 1}))
        await listener.heard()
        await oban.enqueue(Sync.new({"n": 1}))
        assert await listener.heard() == []

    async def test_the_last_of_many_wins(self, oban: Oban, observer: Observer) -> None:
        jobs = [Index.new({"page": 1, "v": v}) for v in range(5)]
        await oban.enqueue_many(jobs)
        assert await observer.args() == [{"page": 1, "v": 4}]
        assert len({job.id for job in jobs}) == 1

    async def test_only_duplicates_with_replace_replace(
        self, oban: Oban, observer: Observer
    ) -> None:
        unique = Unique(fields=["worker"])
        replacing = Unique(fields=["worker"], replace=["args"])
        await oban.enqueue(Sync.new({"n": 0}, unique=unique))
        rules = [unique, replacing, unique, replacing, unique]
        jobs = [Sync.new({"n": n}, unique=rule) for n, rule in enumerate(rules, 1)]
        await oban.enqueue_many(jobs)
        assert all(job.conflict for job in jobs)
        assert await observer.args() == [{"n": 4}]

    async def test_max_attempts_stays_above_the_spent_attempts(
        self, oban: Oban, sessions: Sessions
    ) -> None:
        unique = Unique(replace=["max_attempts"])
        first = await oban.enqueue(Sync.new({"n": 1}, unique=unique))
        await move(sessions, first, state=JobState.RETRYABLE, attempt=5)
        again = await oban.enqueue(Sync.new({"n": 1}, unique=unique, max_attempts=2))
        assert again.max_attempts == 5


class TestSession:
    async def test_a_duplicate_is_persistent(self, oban: Oban, sessions: Sessions) -> None:
        first = await oban.enqueue(Sync.new({"n": 1}))
        async with sessions.begin() as session:
            job = await Sync.enqueue({"n": 1}, conn=session)
            assert (job.conflict, job.id) == (False, None)
            await session.flush()
            assert inspect(job).persistent
            assert await session.get(Job, first.id) is job
            job.priority = 4
        assert (await oban.get_job(first.id)).priority == 4  # type: ignore[union-attr]

    async def test_a_duplicate_of_a_job_that_the_session_has_is_detached(
        self, oban: Oban, sessions: Sessions
    ) -> None:
        first = await oban.enqueue(Index.new({"page": 1, "v": 1}, priority=2))
        async with sessions.begin() as session:
            held = await session.get(Job, first.id)
            assert held is not None
            held.priority = 3
            job = await Index.enqueue({"page": 1, "v": 2}, conn=session)
            await session.flush()
            assert inspect(job).detached
            assert (job.conflict, job.id) == (True, first.id)
            assert (held.args, held.priority) == ({"page": 1, "v": 2}, 3)
            assert held in session

    def test_rows_that_refer_to_a_duplicate_refer_to_the_existing_job(
        self, session_factory: sessionmaker[Session]
    ) -> None:
        with session_factory() as session:
            Base.metadata.create_all(session.connection())
            session.add(early := Import())
            session.add_all(late := [Import(job=Sync.new({"n": 1})) for _ in range(2)])
            session.flush()
            held = late[0].job
            early.job = Sync.new({"n": 1})
            early.jobs = [Sync.new({"n": n}) for n in (1, 2, 1)]
            session.flush()
            session.expire_all()
            assert [row.job for row in (early, *late)] == [held] * 3
            assert held in early.jobs
            assert len(early.jobs) == 2
            session.rollback()

    async def test_session_add_finds_duplicates(self, oban: Oban, sessions: Sessions) -> None:
        async with sessions.begin() as session:
            jobs = [Sync.new({"n": 1}) for _ in range(2)]
            session.add_all(jobs)
        assert [job.conflict for job in jobs] == [False, True]

    async def test_a_job_that_a_connection_rolled_back_can_be_added(
        self, engine: AsyncEngine, oban: Oban, sessions: Sessions
    ) -> None:
        async with engine.connect() as connection:
            job = await oban.enqueue(Sync.new({"n": 1}), conn=connection)
            again = await oban.enqueue(Sync.new({"n": 1}), conn=connection)
            await connection.rollback()
        async with sessions.begin() as session:
            await oban.enqueue_many([again, job], conn=session)
        assert [again.conflict, job.conflict] == [False, True]
        assert again.id == job.id

    async def test_a_waiting_unique_job_beside_rows_that_may_refer_to_jobs_is_refused(
        self, session_factory: sessionmaker[Session]
    ) -> None:
        with session_factory() as session:
            models.Base.metadata.create_all(session.connection())
            session.add(models.Export(job=Job("tests.Sync")))
            session.add(order := models.Order())
            session.add(job := Sync.new({"order": order}))
            with pytest.raises(ObanError, match="flush before you enqueue the job"):
                session.flush()
            session.expunge(job)
            session.flush()
            session.add(job := Sync.new({"order": order}))
            session.flush()
            assert job.id is not None
            session.rollback()

    async def test_a_unique_job_added_while_a_flush_runs_is_refused(
        self, session_factory: sessionmaker[Session]
    ) -> None:
        with session_factory() as session:

            def add(session: Session, flush_context: Any, instances: Any) -> None:
                session.add(Sync.new({"n": 2}))

            event.listen(session, "before_flush", add)
            session.add(User(name="ann"))
            with pytest.raises(ObanError, match="was added while a flush ran"):
                session.flush()

    def test_a_job_added_after_a_flush_is_unique(
        self, session_factory: sessionmaker[Session]
    ) -> None:
        with session_factory() as session:

            def add(session: Session, flush_context: Any) -> None:
                session.add_all([Sync.new({"n": 2}), Sync.new({"n": 2})])

            event.listen(session, "after_flush", add, once=True)
            session.add(User(name="ann"))
            session.flush()
            assert len(session.scalars(select(Job)).all()) == 1

    def test_a_merged_job_is_unique(self, session_factory: sessionmaker[Session]) -> None:
        with session_factory() as session:
            models.Base.metadata.create_all(session.connection())
            session.add(models.Order())  # in addition to the jobs
            jobs = [session.merge(Sync.new({"n": 1}, meta={"a": 1})) for _ in range(2)]
            jobs[1].meta = {"b": 1}
            session.merge(models.Export(job=Sync.new({"n": 1})))
            session.flush()
            assert [job.conflict for job in jobs] == [False, True]
            assert jobs[0].id == jobs[1].id == session.scalars(select(models.Export.job_id)).one()
            assert session.scalars(select(Job.meta["a"])).all() == [1]
            jobs[0].meta = {"c": 1}
            session.flush()
            session.rollback()

    @pytest.mark.parametrize(
        "store",
        [
            lambda session, job: session.bulk_save_objects([job]),
            lambda session, job: session.execute(
                insert(Job), [{"worker": job.worker, "args": job.args, "meta": job.meta}]
            ),
        ],
    )
    def test_a_unique_job_that_bypasses_the_flush_is_refused(
        self, session_factory: sessionmaker[Session], store: Any
    ) -> None:
        with session_factory() as session:
            with pytest.raises(StatementError, match=r"a job is unique, .*; add the job to a"):
                store(session, Sync.new({"n": 1}))
            session.rollback()
            store(session, Sync.new({"n": 1}, unique=False))
            assert session.scalars(select(Job.args)).all() == [{"n": 1}]

    async def test_a_job_that_the_same_flush_deletes_or_ends_does_not_conflict(
        self, oban: Oban, sessions: Sessions, observer: Observer
    ) -> None:
        await oban.enqueue_many(Sync.new({"n": n}) for n in (1, 2))
        async with sessions.begin() as session:
            one, two = await session.scalars(select(Job).order_by(Job.id))
            await session.delete(one)
            two.state = JobState.CANCELLED
            jobs = [await Sync.enqueue({"n": n}, conn=session) for n in (1, 2)]
        assert [job.conflict for job in jobs] == [False, False]
        assert await observer.args() == [{"n": 2}, {"n": 1}, {"n": 2}]

    async def test_after_a_rollback_a_duplicate_is_a_new_job_again(
        self, oban: Oban, sessions: Sessions
    ) -> None:
        first = await oban.enqueue(Sync.new({"n": 1}, priority=1))
        async with sessions() as session:
            job = await Sync.enqueue({"n": 1}, conn=session, priority=2)
            await session.flush()
            assert job.conflict
            await session.rollback()
            assert inspect(job).transient
            assert (job.conflict, job.priority, job.id) == (False, 2, None)
            await oban.delete_jobs(first)
            session.add(job)
            await session.commit()
            assert not job.conflict
            assert job.id != first.id

    def test_a_sync_session_autoflushes(self, session_factory: sessionmaker[Session]) -> None:
        with session_factory.begin() as session:
            session.add(Sync.new({"n": 1}))
            assert len(session.scalars(select(Job)).all()) == 1
            session.add(Sync.new({"n": 1}))
            assert len(session.scalars(select(Job)).all()) == 1


async def test_meta_of_another_oban_stops_no_job(oban: Oban, sessions: Sessions) -> None:
    plain = await oban.enqueue(Sync.new({"n": 1}, unique=False))
    for meta in ([], "text", None, {ENTRY: 7}, {ENTRY: {"states": ["available"]}}):
        await move(sessions, plain, meta=meta)
        await move(sessions, plain, state=JobState.EXECUTING)
        await move(sessions, plain, state=JobState.AVAILABLE)
