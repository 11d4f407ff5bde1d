"""The same conformance class for each kind of `conn`, then tests of single kinds."""

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, event, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from oban_sqla import Job, JobState, Oban, Worker
from oban_sqla.enqueue import batch
from oban_sqla.enqueue.enqueue import enqueue
from tests.conftest import Tune
from tests.databases import User
from tests.enqueue.conftest import Listener, Observer
from tests.enqueue.conn_kinds import (
    CONN_KINDS,
    MAIN_KINDS,
    ConnKind,
    SessionKind,
    ending_badly,
)
from tests.factories import JobFactory

SOON = datetime(2040, 5, 17, 8, 30, 15, 123456, tzinfo=UTC)
LATER = SOON + timedelta(days=1)


class Send(Worker, name="tests.Send", queue="mailers", max_attempts=7, priority=3, tags=["b", "a"]):
    async def process(self, job: Job) -> None: ...


@pytest.fixture
def oban(engine: AsyncEngine) -> Oban:
    """An instance that was never started, and knows the schema."""
    return Oban(engine)


@pytest.fixture
def insert_user(prefix: str) -> str:
    return f"INSERT INTO {prefix}.users (name) VALUES ('ann')"


@pytest.mark.parametrize("kind", CONN_KINDS, indirect=True)
class TestEveryConn:
    async def test_a_job_has_the_values_of_its_row(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        job = await oban.enqueue(Send.new({"n": 1}), conn=kind.conn)
        await kind.flush()
        values = {name: getattr(job, name) for name in Job.__table__.columns.keys()}  # noqa: SIM118
        await kind.commit()
        [row] = await observer.jobs()
        assert values["inserted_at"] == values["scheduled_at"]
        assert values["inserted_at"].tzinfo is UTC
        for instant in ("inserted_at", "scheduled_at"):
            values[instant] = values[instant].replace(tzinfo=None)
        assert values == row
        assert row["state"] == "available"
        assert isinstance(values["state"], JobState)
        assert row["priority"] == 3
        assert row["max_attempts"] == 7
        assert row["tags"] == ["a", "b"]

    async def test_anything_that_json_and_text_can_hold_arrives_unchanged(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        nasty = "'; DROP TABLE oban_jobs; -- %s %(jobs)s {} \\ \\u0000 \" $$ \n\t ÄÖ 漢字 🦜"
        args = {nasty: [nasty, None, True, 1.5, -(2**70), {"": []}]}
        options: Any = {"queue": nasty, "tags": ["a,b", '"{}"', "it's \\"], "meta": {"x": nasty}}
        await oban.enqueue(Send.new(args, **options), conn=kind.conn)
        await kind.commit()
        [row] = await observer.jobs()
        assert row["args"] == args
        assert row["meta"] == {"x": nasty}
        assert row["queue"] == nasty
        assert row["tags"] == sorted(options["tags"])


@pytest.mark.parametrize("kind", MAIN_KINDS, indirect=True)
class TestMainKinds:
    async def test_a_job_exists_once_its_transaction_committed(
        self, kind: ConnKind, oban: Oban, observer: Observer, insert_user: str
    ) -> None:
        await kind.run(insert_user)
        await oban.enqueue(Send.new({"n": 1}), conn=kind.conn)
        await kind.flush()
        assert await observer.args() == []
        await kind.commit()
        assert await observer.args() == [{"n": 1}]
        assert await observer.users() == ["ann"]

    async def test_a_job_is_rolled_back_with_the_users_rows(
        self, kind: ConnKind, oban: Oban, observer: Observer, insert_user: str
    ) -> None:
        await oban.enqueue(Send.new({"n": 1}), conn=kind.conn)
        await kind.run(insert_user)
        await kind.flush()
        await kind.rollback()
        await kind.commit()
        assert await observer.args() == []
        assert await observer.users() == []

    async def test_a_job_of_a_rolled_back_savepoint_is_gone(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        await oban.enqueue(Send.new({"n": 1}), conn=kind.conn)
        async with ending_badly(kind.savepoint()):
            await oban.enqueue(Send.new({"n": 2}), conn=kind.conn)
            await kind.flush()
        await oban.enqueue(Send.new({"n": 3}), conn=kind.conn)
        await kind.commit()
        assert await observer.args() == [{"n": 1}, {"n": 3}]

    async def test_a_job_of_a_released_savepoint_stays(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        await oban.enqueue(Send.new({"n": 1}), conn=kind.conn)
        async with kind.savepoint():
            await oban.enqueue(Send.new({"n": 2}), conn=kind.conn)
        await kind.commit()
        assert await observer.args() == [{"n": 1}, {"n": 2}]

    async def test_a_scheduled_job_is_due_at_its_instant_in_utc(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        kathmandu = timezone(timedelta(hours=5, minutes=45))
        for given in (SOON, SOON.replace(tzinfo=None), SOON.astimezone(kathmandu)):
            job = await oban.enqueue(Send.new(scheduled_at=given), conn=kind.conn)
            await kind.flush()
            assert job.scheduled_at == SOON
            assert job.scheduled_at.utcoffset() == timedelta(0)
            assert job.state is JobState.SCHEDULED
        await kind.commit()
        rows = await observer.jobs()
        assert [row["scheduled_at"] for row in rows] == [SOON.replace(tzinfo=None)] * 3
        assert [row["state"] for row in rows] == ["scheduled"] * 3

    async def test_json_that_looks_like_a_reference_stays_json(
        self,
        kind: ConnKind,
        oban: Oban,
        observer: Observer,
        sessions: async_sessionmaker[AsyncSession],
    ) -> None:
        lookalike = {"$model": "tests.databases.User", "$key": {"id": 1}}
        jobs = [
            Send.new({"payload": lookalike, "list": [lookalike], "n": 1}),
            Send.new(lookalike),
            Send.new({"payload": lookalike}, unique=True),
            Send.new({"payload": lookalike}, unique=True),
        ]
        given = [job.args for job in jobs]
        await oban.enqueue_many(jobs, conn=kind.conn)
        await kind.flush()
        assert [job.args for job in jobs] == given
        await kind.commit()
        assert '"$model"' not in json.dumps(await observer.args())
        async with sessions() as session:
            stored = await session.scalars(select(Job.args))
        assert sorted(stored, key=len) == sorted(given[:3], key=len)

    async def test_many_jobs_get_ids_in_their_order(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        jobs = [Send.new({"n": n}, priority=n % 10) for n in range(1000)]
        assert await oban.enqueue_many(jobs, conn=kind.conn) == jobs
        await kind.flush()
        ids = [job.id for job in jobs]
        assert ids == sorted(set(ids))
        await kind.commit()
        rows = await observer.jobs()
        assert [(row["id"], row["args"]) for row in rows] == [
            (id, {"n": n}) for n, id in enumerate(ids)
        ]

    async def test_an_enqueue_of_no_jobs_is_allowed(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        assert await oban.enqueue_many(conn=kind.conn) == []
        assert await oban.enqueue_many([], conn=kind.conn) == []
        await kind.commit()
        assert await observer.args() == []

    async def test_jobs_are_given_one_by_one_in_iterables_or_both(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        more = (Send.new({"n": n}) for n in (2, 3))
        await oban.enqueue_many(Send.new({"n": 1}), more, conn=kind.conn)
        await kind.commit()
        assert await observer.args() == [{"n": 1}, {"n": 2}, {"n": 3}]

    async def test_a_job_can_be_enqueued_again_after_a_rollback(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        jobs = [Send.new({"n": 1}), Send.new({"n": 2}, scheduled_at=SOON)]
        for _ in range(2):
            await oban.enqueue_many(jobs, conn=kind.conn)
            await kind.flush()
            await kind.rollback()
        async with ending_badly(kind.savepoint()):
            await oban.enqueue_many(jobs, conn=kind.conn)
            await kind.flush()
        await oban.enqueue_many(jobs, conn=kind.conn)
        await kind.flush()
        ids = [job.id for job in jobs]
        await kind.commit()
        rows = await observer.jobs()
        assert [row["id"] for row in rows] == ids
        assert [row["args"] for row in rows] == [{"n": 1}, {"n": 2}]
        assert [row["state"] for row in rows] == ["available", "scheduled"]

    async def test_the_queues_and_the_earliest_due_time_are_notified_once_at_commit(
        self, kind: ConnKind, oban: Oban, listener: Listener
    ) -> None:
        for queue in ("b", "a", "b"):
            await oban.enqueue(Send.new(queue=queue), conn=kind.conn)
        await oban.enqueue_many(
            [Send.new(queue="c", scheduled_at=at) for at in (LATER, SOON, LATER)], conn=kind.conn
        )
        await kind.flush()
        assert await listener.heard() == []
        await kind.commit()
        news = await listener.heard()
        assert sorted(news, key=str) == [
            ("oban_insert", {"queue": "a"}),
            ("oban_insert", {"queue": "b"}),
            ("oban_schedule", {"at": "2040-05-17T08:30:15.123456+00:00"}),
        ]

    async def test_a_rolled_back_job_is_not_notified(
        self, kind: ConnKind, oban: Oban, listener: Listener
    ) -> None:
        async with ending_badly(kind.savepoint()):
            await oban.enqueue(Send.new(queue="inner"), conn=kind.conn)
            await oban.enqueue(Send.new(scheduled_at=SOON), conn=kind.conn)
            await kind.flush()
        await oban.enqueue(Send.new(queue="outer"), conn=kind.conn)
        await kind.commit()
        await oban.enqueue(Send.new(queue="other"), conn=kind.conn)
        await kind.flush()
        await kind.rollback()
        assert await listener.heard() == [("oban_insert", {"queue": "outer"})]

    async def test_wrong_jobs_are_refused_before_anything_is_sent(
        self,
        kind: ConnKind,
        oban: Oban,
        observer: Observer,
        sessions: async_sessionmaker[AsyncSession],
    ) -> None:
        job = Send.new({"n": 1})
        async with sessions() as session:
            taken = Send.new({"n": 2})
            session.add(taken)
            running = JobFactory(executing=True)
            for jobs, error, message in [
                ([job, job], ValueError, "the same job was given twice"),
                ([job, taken], ValueError, "is in a session already"),
                ([job, running], ValueError, "has already started"),
                ([job, Send], TypeError, "can only enqueue a Job"),
                ([job, None], TypeError, "can only enqueue a Job"),
                ("job", TypeError, "can only enqueue a Job"),
            ]:
                with pytest.raises(error, match=message):
                    await oban.enqueue_many(jobs, conn=kind.conn)
        await oban.enqueue(job, conn=kind.conn)
        await kind.commit()
        assert await observer.args() == [{"n": 1}]

    async def test_a_job_spoilt_after_new_breaks_at_most_a_savepoint(
        self, kind: ConnKind, oban: Oban, observer: Observer
    ) -> None:
        await oban.enqueue(Send.new({"n": 1}), conn=kind.conn)
        for bad in ("\x00", "\ud800", float("nan"), object()):
            job = Send.new({"n": 2, "list": ["fine 🦜"]})
            job.args["list"].append(bad)
            if isinstance(kind, SessionKind):
                # A failed flush rolls back its transaction.
                async with kind.savepoint():
                    await oban.enqueue(job, conn=kind.conn)
                    with pytest.raises((StatementError, TypeError, ValueError)):
                        await kind.flush()
            else:
                with pytest.raises((TypeError, ValueError), match=r"args\['list'\]\[1\]"):
                    await oban.enqueue(job, conn=kind.conn)
        await oban.enqueue(Send.new({"n": 3}), conn=kind.conn)
        await kind.commit()
        assert await observer.args() == [{"n": 1}, {"n": 3}]


NOT_SESSIONS = [name for name in MAIN_KINDS if "ession" not in name]


@pytest.mark.parametrize("kind", NOT_SESSIONS, indirect=True)
class TestConnections:
    """A `conn` that is not a session inserts at once, and its jobs are detached."""

    async def test_a_job_that_is_added_to_a_session_later_is_not_inserted_again(
        self,
        kind: ConnKind,
        oban: Oban,
        observer: Observer,
        sessions: async_sessionmaker[AsyncSession],
    ) -> None:
        job = await oban.enqueue(Send.new({"n": 1}), conn=kind.conn)
        await kind.commit()
        async with sessions.begin() as session:
            session.add(job)
            job.tags = ["changed"]
        [row] = await observer.jobs()
        assert row["tags"] == ["changed"]
        async with sessions() as session:
            assert (await session.get(Job, job.id)).args == {"n": 1}

    async def test_a_job_that_was_rolled_back_can_be_enqueued_through_a_session(
        self,
        kind: ConnKind,
        oban: Oban,
        observer: Observer,
        sessions: async_sessionmaker[AsyncSession],
    ) -> None:
        job = await oban.enqueue(Send.new({"n": 1}), conn=kind.conn)
        await kind.rollback()
        async with sessions.begin() as session:
            await oban.enqueue(job, conn=session)
        assert await observer.args() == [{"n": 1}]


@pytest.mark.parametrize("options", [{"stream_results": True}, {"yield_per": 2}])
async def test_a_connection_may_stream_its_results(
    engine: AsyncEngine, oban: Oban, observer: Observer, options: dict[str, Any]
) -> None:
    async with engine.begin() as connection:
        await connection.execution_options(**options)
        await oban.enqueue(Send.new({"n": 1}), conn=connection)
        jobs = await oban.enqueue_many([Send.new({"n": n}) for n in (2, 3, 4)], conn=connection)
        assert all(job.id is not None for job in jobs)
        await oban.enqueue(Send.new({"n": 5}, unique=True), conn=connection)
        async with AsyncSession(connection) as session:
            session.add(Send.new({"n": 6}))
            await session.flush()
            await session.commit()
    assert await observer.args() == [{"n": n} for n in range(1, 7)]


@pytest.mark.parametrize(
    "kind",
    [
        "AsyncSession-psycopg",
        "AsyncConnection-psycopg",
        "Connection-psycopg",
        "psycopg.AsyncConnection",
        "foreign-rows",
    ],
    indirect=True,
)
async def test_the_jobs_of_several_batches_get_ids_in_their_order(
    kind: ConnKind, oban: Oban, observer: Observer
) -> None:
    jobs = [Send.new({"n": n}) for n in range(3 * batch.MOST_ROWS + 1)]
    await oban.enqueue_many(jobs, conn=kind.conn)
    await kind.flush()
    ids = [job.id for job in jobs]
    await kind.commit()
    rows = await observer.jobs()
    assert [row["id"] for row in rows] == ids
    assert [row["args"]["n"] for row in rows] == list(range(len(jobs)))


async def test_a_bad_job_in_a_later_batch_inserts_no_job(
    oban: Oban, observer: Observer, engine: AsyncEngine, tune: Tune
) -> None:
    tune(batch, MOST_ROWS=2)
    jobs = [Send.new({"n": n}) for n in range(5)]
    jobs[4].args["bad"] = float("inf")
    async with engine.begin() as connection:
        with pytest.raises(ValueError, match=r"args\['bad'\]"):
            await oban.enqueue_many(jobs, conn=connection)
    assert await observer.args() == []


async def test_batches_are_bounded_in_rows_and_in_length(
    oban: Oban, observer: Observer, engine: AsyncEngine, tune: Tune
) -> None:
    tune(batch, MOST_ROWS=3, MOST_CHARACTERS=1000)
    jobs = [Send.new({"n": n, "text": "x" * (2000 if n == 5 else 1)}) for n in range(9)]
    sent: list[str] = []
    event.listen(
        engine.sync_engine, "before_cursor_execute", lambda *args: sent.append(args[3]["jobs"])
    )
    async with engine.begin() as connection:
        await oban.enqueue_many(jobs, conn=connection)
    rows = [len(json.loads(batch)) for batch in sent]
    assert rows == [
        3,
        1,
        1,
        1,
        3,
    ]  # jobs 3 to 5 together were too long for one statement, and so were 4 and 5
    assert all(len(batch) <= 1000 or count == 1 for batch, count in zip(sent, rows, strict=True))
    assert [args["n"] for args in await observer.args()] == list(range(9))


class TestJoinedTransactions:
    """A session bound to a connection whose transaction the caller begins and ends."""

    @pytest.mark.parametrize(
        "mode", ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"]
    )
    async def test_a_joined_session_leaves_the_end_to_the_outer_transaction(
        self, oban: Oban, engine: AsyncEngine, observer: Observer, listener: Listener, mode: Any
    ) -> None:
        async with engine.connect() as connection:
            for commit in (False, True):
                outer = await connection.begin()
                async with AsyncSession(connection, join_transaction_mode=mode) as session:
                    await oban.enqueue(Send.new({"commit": commit}), conn=session)
                    await session.flush()
                    if mode != "control_fully":
                        await session.commit()
                    assert await observer.args() == []
                    assert await listener.heard() == []
                    if commit:
                        await outer.commit()
                    else:
                        await outer.rollback()
        assert await observer.args() == [{"commit": True}]
        assert await listener.heard() == [("oban_insert", {"queue": "mailers"})]

    async def test_a_sync_session_joins_as_well(
        self, oban: Oban, session_factory: sessionmaker[Session], observer: Observer
    ) -> None:
        engine = session_factory.kw["bind"]
        with engine.connect() as connection:
            outer = connection.begin()
            with Session(connection) as session:
                await oban.enqueue(Send.new({"n": 1}), conn=session)
                session.commit()
            outer.rollback()
            with connection.begin(), Session(connection) as session:
                await oban.enqueue(Send.new({"n": 2}), conn=session)
                session.commit()
        assert await observer.args() == [{"n": 2}]

    async def test_a_session_and_its_connection_share_the_transaction(
        self, oban: Oban, sessions: async_sessionmaker[AsyncSession], observer: Observer
    ) -> None:
        async with sessions() as session:
            connection = await session.connection()
            driver = (await connection.get_raw_connection()).driver_connection
            await oban.enqueue(Send.new({"n": 1}), conn=connection)
            await oban.enqueue(Send.new({"n": 2}), conn=driver)
            await oban.enqueue(Send.new({"n": 3}), conn=session)
            await session.flush()
            assert await observer.args() == []
            await session.commit()
        assert await observer.args() == [{"n": 1}, {"n": 2}, {"n": 3}]


async def test_a_session_of_another_thread_enqueues(
    session_factory: sessionmaker[Session], observer: Observer
) -> None:
    def work() -> None:
        assert threading.current_thread() is not threading.main_thread()
        with session_factory.begin() as session:
            session.add(User(name="ann"))
            session.add(Send.new({"n": 1}))
            asyncio.run(Send.enqueue({"n": 2}, conn=session))

    await asyncio.to_thread(work)
    assert await observer.args() == [{"n": 1}, {"n": 2}]
    assert await observer.users() == ["ann"]


class TestAutocommit:
    """With autocommit each statement, and each enqueue, is a transaction."""

    async def test_a_psycopg_connection_commits_each_enqueue(
        self, oban: Oban, postgres_dsn: str, observer: Observer, listener: Listener
    ) -> None:
        async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as conn:
            await oban.enqueue(Send.new({"n": 1}), conn=conn)
            assert await observer.args() == [{"n": 1}]
            async with ending_badly(conn.transaction()):
                await oban.enqueue(Send.new({"n": 2}), conn=conn)
            async with conn.transaction():
                await oban.enqueue(Send.new({"n": 3}), conn=conn)
        assert await observer.args() == [{"n": 1}, {"n": 3}]
        assert await listener.heard() == [("oban_insert", {"queue": "mailers"})] * 2

    async def test_a_sqlalchemy_connection_commits_each_enqueue(
        self, oban: Oban, engine: AsyncEngine, observer: Observer, listener: Listener
    ) -> None:
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        async with autocommit.connect() as connection:
            await oban.enqueue(Send.new({"n": 1}), conn=connection)
            assert await observer.args() == [{"n": 1}]
        async with AsyncSession(autocommit) as session:
            await oban.enqueue(Send.new({"n": 2}), conn=session)
            await session.flush()
            assert await observer.args() == [{"n": 1}, {"n": 2}]
        assert await listener.heard() == [("oban_insert", {"queue": "mailers"})] * 2


class TestOwnTransaction:
    """Without `conn`, the instance uses a transaction of its own."""

    async def test_jobs_are_committed(
        self, oban: Oban, observer: Observer, listener: Listener
    ) -> None:
        job = await oban.enqueue(Send.new({"n": 1}))
        assert await observer.args() == [{"n": 1}]
        first, second = await oban.enqueue_many(Send.new({"n": 2}), Send.new({"n": 3}))
        assert await observer.args() == [{"n": 1}, {"n": 2}, {"n": 3}]
        assert job.id < first.id < second.id
        assert await listener.heard() == [("oban_insert", {"queue": "mailers"})] * 2

    async def test_all_jobs_are_inserted_or_none(
        self, oban: Oban, observer: Observer, tune: Tune
    ) -> None:
        tune(batch, MOST_ROWS=1)
        jobs = [Send.new({"n": n}) for n in range(3)]
        # The validators accept it, so only the database refuses it.
        vars(jobs[2])["max_attempts"] = 0
        with pytest.raises(Exception, match="positive_max_attempts"):
            await oban.enqueue_many(jobs)
        assert await observer.args() == []

    async def test_no_jobs_need_no_connection(self, oban: Oban) -> None:
        assert await Oban("postgresql://nobody@nowhere.invalid/none").enqueue_many() == []

    async def test_the_worker_finds_the_running_instance(
        self, oban: Oban, observer: Observer
    ) -> None:
        await Send.enqueue({"n": 1})
        assert await observer.args() == [{"n": 1}]

    async def test_the_psycopg_connection_of_the_instance_can_be_used(
        self, oban: Oban, observer: Observer
    ) -> None:
        async with oban.connection() as conn:
            async with ending_badly(conn.transaction()):
                await oban.enqueue(Send.new({"n": 1}), conn=conn)
            async with conn.transaction():
                await oban.enqueue(Send.new({"n": 2}), conn=conn)
        assert await observer.args() == [{"n": 2}]


class TestPrefix:
    """The schema into which the job is inserted."""

    async def test_the_search_path_decides_when_nothing_else_does(
        self, postgres_dsn: str, prefix: str, observer: Observer, listener: Listener
    ) -> None:
        options = f"-csearch_path={prefix}"
        async with await psycopg.AsyncConnection.connect(postgres_dsn, options=options) as conn:
            await enqueue([Send.new({"n": 1})], conn)
        url = make_url(postgres_dsn).set(drivername="postgresql+psycopg")
        engine = create_engine(url, connect_args={"options": options})
        with engine.begin() as connection:
            await enqueue([Send.new({"n": 2})], connection)
        with Session(engine) as session, session.begin():
            session.add(Send.new({"n": 3}))
        engine.dispose()
        assert await observer.args() == [{"n": 1}, {"n": 2}, {"n": 3}]
        assert await listener.heard() == [("oban_insert", {"queue": "mailers"})] * 3

    async def test_the_instances_prefix_holds_for_a_connection_without_one(
        self, postgres_dsn: str, prefix: str, observer: Observer, listener: Listener
    ) -> None:
        url = make_url(postgres_dsn).set(drivername="postgresql+psycopg")
        oban = Oban(url, prefix=prefix)
        engine = create_engine(url)
        with engine.begin() as connection:
            await oban.enqueue(Send.new({"n": 1}), conn=connection)
            await Send.enqueue({"n": 2}, conn=connection)
        async with await psycopg.AsyncConnection.connect(postgres_dsn) as conn:
            await Send.enqueue({"n": 3}, conn=conn)
        engine.dispose()
        assert await observer.args() == [{"n": 1}, {"n": 2}, {"n": 3}]
        assert await listener.heard() == [("oban_insert", {"queue": "mailers"})] * 2

    async def test_the_schema_map_of_the_connection_comes_first(
        self, engine: AsyncEngine, observer: Observer
    ) -> None:
        oban = Oban(engine, prefix="elsewhere")
        async with engine.begin() as connection:
            await oban.enqueue(Send.new({"n": 1}), conn=connection)
        assert await observer.args() == [{"n": 1}]

    async def test_a_schema_name_may_need_quotes(
        self, connection: psycopg.AsyncConnection, postgres_dsn: str, prefix: str
    ) -> None:
        # The channel's name would be too long with Oban's suffix: the jobs are inserted without a
        # NOTIFY.
        name = f'a "b" %s :c {"x" * 50}'
        await connection.execute(
            sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(*map(sql.Identifier, (prefix, name)))
        )
        try:
            url = make_url(postgres_dsn).set(drivername="postgresql+psycopg")
            engine = create_engine(url, execution_options={"schema_translate_map": {None: name}})
            with Session(engine) as session, session.begin():
                session.add(Send.new({"n": 1}))
                session.flush()
                session.execute(Job.__table__.insert(), [{"worker": "tests.Send"}])
                await enqueue([Send.new({"n": 2})], session.connection())
            async with await psycopg.AsyncConnection.connect(postgres_dsn) as conn:
                await enqueue([Send.new({"n": 3})], conn, prefix=name)
            engine.dispose()
            rows = await Observer(connection, name).args()
            assert rows == [{"n": 1}, {}, {"n": 2}, {"n": 3}]
        finally:
            await connection.execute(
                sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(*map(sql.Identifier, (name, prefix)))
            )


class TestWrongConn:
    """An object that is not a connection is refused. The error lists the accepted kinds."""

    async def test_other_objects_are_refused(
        self,
        oban: Oban,
        engine: AsyncEngine,
        sessions: async_sessionmaker[AsyncSession],
        session_factory: sessionmaker[Session],
        observer: Observer,
    ) -> None:
        url = engine.url
        async with sessions() as session, session.begin() as transaction:
            for wrong in (
                engine,
                engine.sync_engine,
                url,
                sessions,
                session_factory,
                transaction,
                oban,
                "postgresql://",
                0,
                False,
                [],
                object(),
                Session,
                AsyncSession,
                psycopg.Connection,
                _WithoutExecute(),
            ):
                kind = type(wrong)
                with pytest.raises(TypeError, match="conn must be an AsyncSession, ") as raised:
                    await oban.enqueue(Send.new({"n": 1}), conn=wrong)
                assert f"got {kind.__module__}.{kind.__qualname__}" in str(raised.value)
                with pytest.raises(TypeError, match="conn must be"):
                    await oban.enqueue_many(conn=wrong)
            await oban.enqueue(Send.new({"n": 2}), conn=session)
        assert await observer.args() == [{"n": 2}]

    async def test_asyncpg_is_refused_before_it_breaks_the_transaction(
        self, oban: Oban, postgres_dsn: str, observer: Observer
    ) -> None:
        connection = await asyncpg.connect(postgres_dsn)
        transaction = connection.transaction()
        await transaction.start()
        with pytest.raises(TypeError, match=r"conn must be .* got asyncpg\.connection\.Connection"):
            await oban.enqueue(Send.new(), conn=connection)
        assert await connection.fetchval("SELECT 1") == 1
        await transaction.rollback()
        await connection.close()

    async def test_an_execute_that_returns_no_rows_is_refused(self, oban: Oban) -> None:
        class Silent:
            def __init__(self, result: object) -> None:
                self.result = result

            def execute(self, sql: object, params: object) -> object:
                return self.result

        for result in (None, "INSERT 0 1", 1):
            with pytest.raises(TypeError, match=r"execute\(\) of .*Silent has to return the rows"):
                await oban.enqueue(Send.new(), conn=Silent(result))


class _WithoutExecute:
    """A connection like that of psycopg2, which only has cursors."""

    def cursor(self) -> None: ...


class TestTheJobAfterwards:
    """The job in its session after the enqueue."""

    async def test_a_session_sends_nothing_until_it_flushes(
        self, oban: Oban, engine: AsyncEngine
    ) -> None:
        async with AsyncSession(engine) as session:
            job = await oban.enqueue(Send.new(), conn=session)
            assert job in session.new
            assert job.id is None
            assert engine.pool.checkedout() == 0

    async def test_session_add_enqueues_as_well(
        self, sessions: async_sessionmaker[AsyncSession], observer: Observer
    ) -> None:
        async with sessions.begin() as session:
            session.add(Send.new({"n": 1}))
            await Send.enqueue({"n": 2}, conn=session)
        assert await observer.args() == [{"n": 1}, {"n": 2}]

    async def test_adding_and_enqueueing_a_pending_job_inserts_it_once(
        self, oban: Oban, sessions: async_sessionmaker[AsyncSession], observer: Observer
    ) -> None:
        async with sessions.begin() as session:
            job = Send.new({"n": 1})
            session.add(job)
            await oban.enqueue(job, conn=session)
        assert await observer.args() == [{"n": 1}]

    async def test_a_job_that_the_session_has_inserted_is_not_enqueued_again(
        self, oban: Oban, sessions: async_sessionmaker[AsyncSession]
    ) -> None:
        async with sessions.begin() as session:
            job = await oban.enqueue(Send.new(), conn=session)
            await session.flush()
            with pytest.raises(ValueError, match="is in a session already"):
                await oban.enqueue(job, conn=session)

    async def test_the_job_is_in_the_identity_map(
        self, oban: Oban, sessions: async_sessionmaker[AsyncSession]
    ) -> None:
        async with sessions.begin() as session:
            job = await oban.enqueue(Send.new(), conn=session)
            await session.flush()
            assert await session.get(Job, job.id) is job

    async def test_without_expire_on_commit_the_id_is_read_without_a_statement(
        self, engine: AsyncEngine, oban: Oban
    ) -> None:
        sent: list[str] = []
        event.listen(
            engine.sync_engine, "before_cursor_execute", lambda *args: sent.append(args[2])
        )
        async with AsyncSession(engine, expire_on_commit=False) as session:
            job = await oban.enqueue(Send.new(), conn=session)
            await session.commit()
            assert len(sent) == 1, "the INSERT, with all that the server generates, and the NOTIFY"
            assert isinstance(job.id, int)
            assert job.state is JobState.AVAILABLE
            assert job.inserted_at <= job.scheduled_at
            assert job.attempted_at is None
            assert len(sent) == 1

    async def test_with_expire_on_commit_the_job_is_loaded_again(
        self, engine: AsyncEngine, session_factory: sessionmaker[Session], oban: Oban
    ) -> None:
        async with AsyncSession(engine) as session:
            job = await oban.enqueue(Send.new(), conn=session)
            await session.commit()
            with pytest.raises(SQLAlchemyError, match="greenlet_spawn"):
                _ = job.id
            await session.refresh(job)
            assert isinstance(job.id, int)
        with session_factory(expire_on_commit=True) as session:
            job = await oban.enqueue(Send.new(), conn=session)
            session.commit()
            assert isinstance(job.id, int)

    async def test_an_expired_job_is_refused_with_the_expired_columns(
        self, engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession], oban: Oban
    ) -> None:
        async with AsyncSession(engine) as session:
            job = await oban.enqueue(Send.new(), conn=session)
            await session.commit()
        async with sessions() as other, engine.connect() as connection:
            for conn in (other, connection):
                with pytest.raises(ValueError, match="expired with its session"):
                    await oban.enqueue(job, conn=conn)

    async def test_a_detached_job_that_is_enqueued_again_is_a_second_job(
        self, oban: Oban, sessions: async_sessionmaker[AsyncSession], observer: Observer
    ) -> None:
        async with sessions.begin() as session:
            job = await oban.enqueue(Send.new({"n": 1}), conn=session)
        first = job.id
        async with sessions.begin() as session:
            await oban.enqueue(job, conn=session)
        assert job.id > first
        await oban.enqueue(job)
        assert await observer.args() == [{"n": 1}] * 3

    async def test_other_objects_of_the_session_stay_as_they_are(
        self, oban: Oban, sessions: async_sessionmaker[AsyncSession]
    ) -> None:
        async with sessions.begin() as session:
            user = User(name="ann")
            session.add(user)
            await session.flush()
            user.name = "bob"
            await oban.enqueue(Send.new(), conn=session)
            assert set(session.dirty) == {user}
            assert [user.name for user in await session.scalars(select(User))] == ["bob"]
            assert await session.scalar(text("SELECT 1")) == 1
