"""The session events: what a flush announces, and which instances a commit wakes."""

import asyncio
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine, event, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, load_only, scoped_session, sessionmaker

from oban_sqla import Job, JobState, Oban, Worker, wakeups
from oban_sqla.enqueue import unit_of_work
from oban_sqla.enqueue.enqueue import enqueue
from oban_sqla.models import ProducerRow
from oban_sqla.wakeups import Address, Wakeup
from oban_sqla.workflows import unit_of_work as workflows
from tests.conftest import StartOban
from tests.databases import User, async_engine, sync_engine
from tests.enqueue.conftest import Listener, Observer
from tests.enqueue.conn_kinds import ending_badly
from tests.factories import JobFactory
from tests.listening import hear

SOON = datetime(2040, 5, 17, 8, 30, tzinfo=UTC)
LATER = SOON + timedelta(days=1)
SOON_NEWS = ("oban_schedule", {"at": SOON.isoformat(timespec="microseconds")})

Sessions = sessionmaker[Session]


class Send(Worker, name="tests.unit_of_work.Send", queue="mailers"):
    async def process(self, job: Job) -> None: ...


def job(queue: str = "mailers", **options: Any) -> Job:
    return Send.new(queue=queue, **options)


def news(*queues: str) -> list[tuple[str, Any]]:
    return [("oban_insert", {"queue": queue}) for queue in queues]


@pytest.fixture
def sync_engine_(session_factory: Sessions) -> Engine:
    return session_factory.kw["bind"]


@pytest.fixture
def sent(sync_engine_: Engine, engine: AsyncEngine) -> Iterator[list[str]]:
    """The statements that the engines send, without COMMIT and similar ones."""
    statements: list[str] = []

    def listener(*args: Any) -> None:
        statements.append(args[2])

    for target in (sync_engine_, engine.sync_engine):
        event.listen(target, "before_cursor_execute", listener)
    yield statements
    for target in (sync_engine_, engine.sync_engine):
        event.remove(target, "before_cursor_execute", listener)


@contextmanager
def detached() -> Iterator[None]:
    """Detach our listeners, and attach them again in their order."""
    workflows.detach()
    unit_of_work.detach()
    try:
        yield
    finally:
        unit_of_work.attach()
        workflows.attach()


def notifies(sent: list[str]) -> int:
    return sum("pg_notify" in statement for statement in sent)


class Woken:
    """The wake-ups of a subscriber for an address and a schema."""

    def __init__(self, address: Address, prefix: str) -> None:
        self._wakeups: list[Wakeup] = []
        self.unsubscribe = wakeups.subscribe(address, prefix, self._wakeups.append)

    async def __call__(self) -> list[Wakeup]:
        """The wake-ups since the last call."""
        passed = asyncio.Event()
        asyncio.get_running_loop().call_soon_threadsafe(passed.set)
        await passed.wait()
        taken = list(self._wakeups)
        self._wakeups.clear()
        return taken


@pytest.fixture
async def woken(sync_engine_: Engine, prefix: str) -> Any:
    woken = Woken(Address.of(sync_engine_.url), prefix)
    yield woken
    woken.unsubscribe()


class TestFlush:
    """The flush sends NOTIFY inside of the transaction."""

    async def test_the_insert_announces_all_queues_of_a_flush(
        self, session_factory: Sessions, sent: list[str], listener: Listener
    ) -> None:
        with session_factory.begin() as session:
            session.add_all(job(queue) for queue in "cabcabcab")
            session.flush()
            assert notifies(sent) == 1
            assert len(sent) == 1, "the INSERT does it"
        assert len(sent) == 1
        assert sorted(await listener.heard(), key=str) == news("a", "b", "c")

    async def test_only_the_earliest_scheduled_job_is_announced(
        self, session_factory: Sessions, sent: list[str], listener: Listener
    ) -> None:
        with session_factory.begin() as session:
            session.add_all(job(scheduled_at=at) for at in (LATER, SOON, LATER))
        assert notifies(sent) == 1
        assert await listener.heard() == [SOON_NEWS]

    async def test_several_flushes_announce_a_queue_once(
        self, session_factory: Sessions, sent: list[str], listener: Listener
    ) -> None:
        with session_factory.begin() as session:
            for queue in ("a", "b", "a", "a"):
                session.add(job(queue))
                session.flush()
        assert notifies(sent) == 4
        assert sorted(await listener.heard(), key=str) == news("a", "b")

    async def test_a_query_flushes_by_itself(
        self, session_factory: Sessions, sent: list[str], listener: Listener
    ) -> None:
        with session_factory.begin() as session:
            session.add(job())
            assert session.scalars(select(Job.queue)).all() == ["mailers"]
            assert notifies(sent) == 1
        assert await listener.heard() == news("mailers")

    async def test_without_autoflush_the_commit_flushes(
        self, session_factory: Sessions, sent: list[str], listener: Listener
    ) -> None:
        with session_factory.begin() as session:
            session.autoflush = False
            session.add(job())
            assert session.scalars(select(Job)).all() == []
            assert notifies(sent) == 0
        assert await listener.heard() == news("mailers")

    @pytest.mark.parametrize("state", ["executing", "completed"])
    async def test_jobs_that_do_not_wait_for_a_node_are_not_announced(
        self, session_factory: Sessions, listener: Listener, state: str
    ) -> None:
        with session_factory.begin() as session:
            session.add(JobFactory(**{state: True}))
            session.add(Job("tests.Nobody", state=JobState.SUSPENDED))
        assert await listener.heard() == []

    async def test_a_job_with_its_state_as_text_is_announced(
        self, session_factory: Sessions, listener: Listener
    ) -> None:
        with session_factory.begin() as session:
            session.add(Job("tests.Nobody", queue="a", state="available"))
        assert await listener.heard() == news("a")

    async def test_a_scheduled_job_without_a_time_is_announced_as_due(
        self, session_factory: Sessions, listener: Listener
    ) -> None:
        with session_factory.begin() as session:
            session.add(Job("tests.Nobody", state=JobState.SCHEDULED))
            session.add(job(scheduled_at=SOON))
        [(channel, payload)] = await listener.heard()
        assert channel == "oban_schedule"
        assert datetime.fromisoformat(payload["at"]) < datetime.now(UTC)

    async def test_a_session_without_jobs_sends_no_further_statement(
        self, session_factory: Sessions, sent: list[str]
    ) -> None:
        def work() -> list[str]:
            with session_factory.begin() as session:
                users = [User(name="ann"), User(name="bob")]
                session.add_all(users)
                session.flush()
                users[0].name = "eve"
                with session.begin_nested():
                    session.delete(users[1])
                session.execute(insert(User), [{"name": "zoe"}])
                session.execute(update(User).values(name="kim"))
                session.scalars(select(User)).all()
                assert session.info == {}
            statements = list(sent)
            sent.clear()
            return statements

        hooked = work()
        with detached():
            assert work() == hooked

    async def test_a_job_of_a_subclass_is_announced(
        self, session_factory: Sessions, listener: Listener
    ) -> None:
        with session_factory.begin() as session:
            session.add(SpecialJob("tests.Nobody", queue="special"))
        assert await listener.heard() == news("special")

    async def test_a_merged_job_is_announced_once(
        self, session_factory: Sessions, sent: list[str], listener: Listener
    ) -> None:
        with session_factory.begin() as session:
            merged = session.merge(job("a"))
        with session_factory.begin() as session:
            session.merge(merged)
        assert notifies(sent) == 1
        assert await listener.heard() == news("a")

    async def test_a_notify_that_fails_fails_the_flush(
        self, session_factory: Sessions, sync_engine_: Engine, observer: Observer
    ) -> None:
        # The server has lost the transaction already, so announcing can break nothing.
        def fail(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
            if "pg_notify" in statement:
                raise ConnectionError("no more notifications")

        event.listen(sync_engine_, "before_cursor_execute", fail)
        with session_factory() as session:
            session.add(job())
            with pytest.raises(ConnectionError):
                session.commit()
            session.rollback()
            assert session.info == {}
            event.remove(sync_engine_, "before_cursor_execute", fail)
            session.add(Send.new({"n": 1}))
            session.commit()
        assert await observer.args() == [{"n": 1}]


class SpecialJob(Job):
    pass


class TestSavepoints:
    async def test_jobs_rolled_back_to_a_savepoint_are_not_announced(
        self, session_factory: Sessions, listener: Listener, observer: Observer
    ) -> None:
        with session_factory.begin() as session:
            for n in range(30):
                if n % 3:
                    async with ending_badly(session.begin_nested()):
                        session.add(job(f"bad{n}"))
                        session.flush()
                        with session.begin_nested():
                            session.add(job(f"worse{n}"))
                else:
                    with session.begin_nested():
                        session.add(job(f"good{n:02}"))
        queues = [f"good{n:02}" for n in range(0, 30, 3)]
        assert [row["queue"] for row in await observer.jobs()] == queues
        assert sorted(await listener.heard(), key=str) == news(*queues)

    async def test_a_flush_that_failed_leaves_nothing_for_the_next_one(
        self, session_factory: Sessions, sent: list[str], listener: Listener
    ) -> None:
        with session_factory.begin() as session:
            with session.begin_nested():
                session.add_all([job("bad"), User(name=None)])
                with pytest.raises(IntegrityError):
                    session.flush()
            sent.clear()
            session.add(User(name="ann"))
            session.flush()
            assert notifies(sent) == 0
            session.add(job("good"))
        assert await listener.heard() == news("good")

    async def test_a_rolled_back_job_can_be_added_again(
        self, session_factory: Sessions, observer: Observer
    ) -> None:
        again = Send.new({"n": 1})
        with session_factory() as session:
            session.add(again)
            session.flush()
            session.rollback()
            async with ending_badly(session.begin_nested()):
                session.add(again)
                session.flush()
            session.add(again)
            session.commit()
        [row] = await observer.jobs()
        assert (row["id"], row["args"]) == (again.id, {"n": 1})


class TestMovedJobs:
    """A loaded job that changes its queue or state is announced in its new queue."""

    async def test_only_the_earliest_time_of_moved_jobs_is_announced(
        self, session_factory: Sessions, listener: Listener
    ) -> None:
        with session_factory.begin() as session:
            session.add_all(moved := [job() for _ in range(3)])
        await listener.heard()
        with session_factory.begin() as session:
            session.add_all(moved)
            for one, at in zip(moved, (LATER, SOON, LATER), strict=True):
                one.state, one.scheduled_at = JobState.SCHEDULED, at
        assert await listener.heard() == [SOON_NEWS]

    async def test_a_flush_that_failed_after_it_moved_jobs_leaves_nothing_for_the_next_one(
        self, session_factory: Sessions, listener: Listener, woken: Woken
    ) -> None:
        def fail(mapper: Any, connection: Connection, target: Job) -> None:
            raise ValueError("no")

        with session_factory.begin() as session:
            session.add_all([bad := job(), good := job()])
        await listener.heard()
        await woken()

        def move_badly() -> None:
            with session.begin_nested():
                bad.queue, bad.state, bad.scheduled_at = "bad", JobState.SCHEDULED, SOON
                session.flush()

        with session_factory.begin() as session:
            session.add_all([bad, good])
            event.listen(Job, "after_update", fail)
            try:
                with pytest.raises(ValueError, match="no"):
                    move_badly()
            finally:
                event.remove(Job, "after_update", fail)
            good.queue = "good"
        assert await listener.heard() == news("good")
        assert await woken() == [Wakeup(frozenset({"good"}))]

    @pytest.fixture
    def move(
        self, session_factory: Sessions, sent: list[str], listener: Listener
    ) -> Callable[..., Any]:
        async def move(stored: Job, change: Callable[[Job], None], *options: Any) -> Any:
            with session_factory.begin() as session:
                session.add(stored)
            await listener.heard()
            with session_factory.begin() as session:
                loaded = session.scalars(select(Job).options(*options)).one()
                change(loaded)
                sent.clear()
            return await listener.heard()

        return move

    async def test_a_job_made_available_is_announced(self, move: Any) -> None:
        def retry(job: Job) -> None:
            job.state = JobState.AVAILABLE

        assert await move(JobFactory(retryable=True, queue="a"), retry) == news("a")

    async def test_a_job_whose_queue_is_not_loaded_is_announced(self, move: Any) -> None:
        def retry(job: Job) -> None:
            job.state = JobState.AVAILABLE

        options = load_only(Job.id, Job.state)
        assert await move(JobFactory(retryable=True, queue="a"), retry, options) == news("a")

    async def test_a_job_moved_to_another_queue_is_announced_there(self, move: Any) -> None:
        def put(job: Job) -> None:
            job.queue = "b"

        assert await move(job("a"), put) == news("b")

    @pytest.mark.parametrize("trait", ["scheduled", "retryable"])
    async def test_a_job_moved_to_another_time_is_announced(self, move: Any, trait: str) -> None:
        def reschedule(job: Job) -> None:
            job.scheduled_at = SOON

        assert await move(JobFactory(**{trait: True}), reschedule) == [SOON_NEWS]

    async def test_an_ended_job_is_not_announced(self, move: Any, sent: list[str]) -> None:
        def cancel(job: Job) -> None:
            job.state = JobState.CANCELLED
            job.cancelled_at = SOON

        assert await move(job(), cancel) == []
        assert notifies(sent) == 0

    async def test_a_job_with_another_change_is_not_announced(
        self, move: Any, sent: list[str]
    ) -> None:
        def annotate(job: Job) -> None:
            job.meta = {"seen": True}

        assert await move(job(), annotate, load_only(Job.id)) == []
        assert len(sent) == 1, "the UPDATE alone"

    async def test_a_deleted_job_is_not_announced(
        self, session_factory: Sessions, sent: list[str], observer: Observer
    ) -> None:
        with session_factory.begin() as session:
            session.add(stored := job())
        sent.clear()
        with session_factory.begin() as session:
            session.delete(stored)
        assert len(sent) == 1, "the DELETE alone"
        assert await observer.jobs() == []


def _values(queue: str = "a") -> dict[str, Any]:
    return {"worker": "tests.Nobody", "queue": queue, "args": {"n": 1}}


class TestBulkStatements:
    """Bulk statements pass no flush, so every running queue, and any time, is announced."""

    NEWS = (*news("a", "b"), ("oban_schedule", {}))

    @pytest.fixture(autouse=True)
    def running(self, session_factory: Sessions) -> None:
        with session_factory.begin() as session:
            session.add_all(
                ProducerRow(uuid=uuid4(), node=node, queue=queue) for node in "12" for queue in "ab"
            )

    @pytest.mark.parametrize(
        ("statement", "params"),
        [
            pytest.param(insert(Job), [_values(), _values("b")], id="insert-many"),
            pytest.param(insert(Job), _values(), id="insert-one"),
            pytest.param(insert(Job).values(**_values()), None, id="insert-values"),
            pytest.param(insert(Job).values([_values(), _values()]), None, id="insert-multivalues"),
            pytest.param(insert(Job).returning(Job), [_values()], id="insert-returning"),
            pytest.param(
                insert(Job).from_select(["worker"], select(literal("tests.Nobody"))),
                None,
                id="insert-from_select",
            ),
            pytest.param(insert(Job.__table__), [_values()], id="insert-core"),
            pytest.param(upsert(Job).on_conflict_do_nothing(), [_values()], id="upsert"),
            pytest.param(
                select(Job).from_statement(insert(Job).values(**_values()).returning(Job)),
                None,
                id="insert-from_statement",
            ),
            pytest.param(
                update(Job).where(Job.queue == "a").values(state=JobState.AVAILABLE),
                None,
                id="update",
            ),
            pytest.param(update(Job.__table__).values(priority=1), None, id="update-core"),
        ],
    )
    async def test_statements_announce_their_jobs_at_the_commit(
        self,
        session_factory: Sessions,
        listener: Listener,
        woken: Woken,
        statement: Any,
        params: Any,
    ) -> None:
        with session_factory() as session:
            session.execute(statement, params)
            assert await listener.heard() == []
            session.rollback()
            assert await listener.heard() == []
            assert await woken() == []
            session.execute(statement, params)
            session.commit()
            assert session.info == {}
        assert sorted(await listener.heard(), key=str) == list(self.NEWS)
        assert await woken() == [Wakeup(queues=None)]

    async def test_the_caller_gets_the_result(self, session_factory: Sessions) -> None:
        with session_factory.begin() as session:
            jobs = session.scalars(
                insert(Job).returning(Job, sort_by_parameter_order=True), [_values(), _values("b")]
            ).all()
            assert [job.queue for job in jobs] == ["a", "b"]
            assert all(job in session for job in jobs)
            result = session.execute(update(Job).values(priority=4))
            assert result.rowcount == 2
            assert [job.priority for job in jobs] == [4, 4]
            rows = [{"id": job.id, "state": JobState.CANCELLED} for job in jobs]
            session.execute(update(Job), rows)
            assert session.query(Job).filter_by(state="cancelled").update({"queue": "c"}) == 2

    async def test_an_async_session_announces_its_jobs(
        self, sessions: async_sessionmaker[AsyncSession], listener: Listener
    ) -> None:
        async with sessions.begin() as session:
            ids = await session.scalars(insert(Job).returning(Job.id), [_values(), _values()])
            assert len(ids.all()) == 2
        assert sorted(await listener.heard(), key=str) == list(self.NEWS)

    async def test_with_autocommit_the_rows_precede_their_notification(
        self, sync_engine_: Engine, sent: list[str], observer: Observer
    ) -> None:
        with Session(sync_engine_.execution_options(isolation_level="AUTOCOMMIT")) as session:
            session.execute(insert(Job), [_values()])
        assert ["pg_notify" in statement for statement in sent] == [False, True]

    async def test_a_failed_statement_announces_nothing(
        self, session_factory: Sessions, sent: list[str], woken: Woken
    ) -> None:
        with session_factory() as session:
            with pytest.raises(IntegrityError):
                session.execute(insert(Job), [{**_values(), "max_attempts": 0}])
            assert notifies(sent) == 0
            session.rollback()
            session.add(User(name="ann"))
            session.commit()
        assert await woken() == []

    async def test_the_schema_map_of_a_statement_is_respected(
        self, postgres_dsn: str, prefix: str, listener: Listener, woken: Woken
    ) -> None:
        engine = create_engine(postgres_dsn.replace("postgresql:", "postgresql+psycopg:", 1))
        options = {"schema_translate_map": {None: prefix}}
        with Session(engine) as session, session.begin():
            session.execute(insert(Job), [_values()], execution_options=options)
        engine.dispose()
        assert sorted(await listener.heard(), key=str) == list(self.NEWS)
        assert await woken() == [Wakeup(queues=None)]

    async def test_statements_of_other_tables_are_unchanged(
        self, session_factory: Sessions, sent: list[str]
    ) -> None:
        with session_factory.begin() as session:
            session.execute(insert(User), [{"name": "ann"}])
            session.execute(select(Job))
            session.execute(Job.__table__.delete())
        assert len(sent) == 3


class TestCommit:
    """The commit of the root transaction wakes the instances of this process."""

    async def test_instances_are_woken_once_with_all_news_of_the_transaction(
        self, session_factory: Sessions, woken: Woken
    ) -> None:
        with session_factory() as session:
            session.add(job("a"))
            session.flush()
            session.add(job("b", scheduled_at=LATER))
            session.add(job("c"))
            with session.begin_nested():
                session.add(job("d", scheduled_at=SOON))
            assert await woken() == []
            session.commit()
            assert await woken() == [Wakeup(frozenset("ac"), SOON)]
            session.add(job("e"))
            session.commit()
            assert await woken() == [Wakeup(frozenset("e"))]
            session.commit()
            session.add(User(name="ann"))
            session.commit()
            assert await woken() == []

    @pytest.mark.parametrize("end", ["rollback", "close", "reset", "invalidate"])
    async def test_a_transaction_that_is_not_committed_wakes_no_instance(
        self, session_factory: Sessions, woken: Woken, end: str
    ) -> None:
        with session_factory() as session:
            session.add(job())
            session.flush()
            getattr(session, end)()
            assert session.info == {}
            session.add(User(name="ann"))
            session.commit()
        assert await woken() == []

    async def test_an_async_session_wakes_instances(
        self, sessions: async_sessionmaker[AsyncSession], woken: Woken
    ) -> None:
        async with sessions.begin() as session:
            session.add(job("a"))
        assert await woken() == [Wakeup(frozenset("a"))]

    async def test_a_sync_session_in_a_thread_wakes_instances(
        self, session_factory: Sessions, woken: Woken
    ) -> None:
        def work() -> None:
            with session_factory.begin() as session:
                session.add(job("a"))

        await asyncio.gather(*(asyncio.to_thread(work) for _ in range(10)))
        assert await woken() == [Wakeup(frozenset("a"))] * 10

    async def test_only_instances_of_the_same_schema_and_database_are_woken(
        self, session_factory: Sessions, sync_engine_: Engine, woken: Woken
    ) -> None:
        address = Address.of(sync_engine_.url)
        others = [
            Woken(address, "another_schema"),
            Woken(address._replace(name="another_database"), woken_prefix(sync_engine_)),
        ]
        with session_factory.begin() as session:
            session.add(job())
        assert len(await woken()) == 1
        for other in others:
            assert await other() == []
            other.unsubscribe()

    async def test_a_session_without_a_schema_wakes_all_instances_of_the_database(
        self, postgres_dsn: str, prefix: str, woken: Woken
    ) -> None:
        engine = create_engine(
            postgres_dsn.replace("postgresql:", "postgresql+psycopg:", 1),
            connect_args={"options": f"-csearch_path={prefix}"},
        )
        with Session(engine) as session, session.begin():
            session.add(job("a"))
        engine.dispose()
        assert await woken() == [Wakeup(frozenset("a"))]

    async def test_a_commit_without_instances_works(
        self, session_factory: Sessions, observer: Observer
    ) -> None:
        with session_factory.begin() as session:
            session.add(job())
        assert len(await observer.jobs()) == 1

    async def test_a_joined_session_wakes_nodes_by_notify_alone(
        self, sync_engine_: Engine, woken: Woken, listener: Listener
    ) -> None:
        # This session gets no after_commit for it, so only NOTIFY tells the nodes.
        with sync_engine_.begin() as connection:
            with Session(connection) as session:
                session.add(job("a"))
                session.commit()
                assert session.info == {}
            await woken()
            assert await listener.heard() == []
        assert await listener.heard() == news("a")

    async def test_a_listener_of_the_user_may_raise(
        self, session_factory: Sessions, woken: Woken
    ) -> None:
        with session_factory() as session:

            @event.listens_for(session, "after_commit")
            def fail(session: Session) -> None:
                raise ZeroDivisionError

            session.add(job())
            with pytest.raises(ZeroDivisionError):
                session.commit()
            event.remove(session, "after_commit", fail)
            session.close()
            assert session.info == {}

    async def test_a_failed_commit_wakes_no_instance(
        self, session_factory: Sessions, sync_engine_: Engine, woken: Woken
    ) -> None:
        def fail(connection: Connection) -> None:
            raise ConnectionError

        with session_factory() as session:
            session.add(job())
            session.flush()
            event.listen(sync_engine_, "commit", fail)
            with pytest.raises(ConnectionError):
                session.commit()
            event.remove(sync_engine_, "commit", fail)
            session.rollback()
            assert session.info == {}
        assert await woken() == []


def woken_prefix(engine: Engine) -> str:
    return engine.get_execution_options()["schema_translate_map"][None]


class TestTwoPhase:
    """PostgreSQL refuses to PREPARE a transaction with a NOTIFY, so only the short cut wakes."""

    @pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
    async def test_a_two_phase_session_wakes_instances_without_a_notify(
        self,
        postgres_dsn: str,
        prefix: str,
        driver: str,
        woken: Woken,
        listener: Listener,
        observer: Observer,
    ) -> None:
        engine = sync_engine(postgres_dsn, prefix, driver)
        with Session(engine, twophase=True) as session:
            session.add(job("a", scheduled_at=SOON))
            with session.begin_nested():
                session.add(job("b"))
            session.execute(insert(Job), [_values()])
            connection = session.connection()
            await enqueue([job("c")], connection)
            session.prepare()
            assert await observer.jobs() == []
            assert await woken() == []
            session.commit()
            assert len(await observer.jobs()) == 4
            assert await woken() == [Wakeup(queues=None)]
            session.add(job("d"))
            session.prepare()
            session.rollback()
            assert session.info == {}
        engine.dispose()
        assert await woken() == []
        assert await listener.heard() == []

    async def test_a_session_may_have_several_databases(
        self, postgres_dsn: str, prefix: str, woken: Woken, observer: Observer
    ) -> None:
        jobs, users = (sync_engine(postgres_dsn, prefix) for _ in range(2))
        with Session(twophase=True, binds={Job: jobs, User: users}) as session:
            session.add_all([job("a"), User(name="ann")])
            session.commit()
        jobs.dispose()
        users.dispose()
        assert await woken() == [Wakeup(frozenset("a"))]
        assert await observer.users() == ["ann"]

    async def test_a_two_phase_connection_inserts_without_a_notify(
        self, sync_engine_: Engine, observer: Observer, listener: Listener
    ) -> None:
        with sync_engine_.connect() as connection:
            transaction = connection.begin_twophase()
            with connection.begin_nested():
                await enqueue([Send.new({"n": 1})], connection)
            transaction.prepare()
            transaction.commit()
        assert await observer.args() == [{"n": 1}]
        assert await listener.heard() == []


class TestKindsOfSessions:
    async def test_a_session_class_of_the_user_is_heard(
        self, engine: AsyncEngine, woken: Woken, listener: Listener
    ) -> None:
        class OwnSession(Session):
            pass

        sessions = async_sessionmaker(engine, sync_session_class=OwnSession)
        async with sessions.begin() as session:
            session.add(job("a"))
        assert await woken() == [Wakeup(frozenset("a"))]
        assert await listener.heard() == news("a")

    async def test_a_session_with_binds_is_heard(
        self,
        sync_engine_: Engine,
        postgres_dsn: str,
        prefix: str,
        woken: Woken,
        listener: Listener,
    ) -> None:
        elsewhere = sync_engine(postgres_dsn, prefix)
        with Session(binds={User: elsewhere, Job: sync_engine_}) as session:
            session.add_all([User(name="ann"), job("a")])
            session.commit()
            assert await listener.heard() == news("a")
            session.execute(insert(Job), [_values()])
            session.execute(insert(Job.__table__), [_values()])
            session.commit()
        elsewhere.dispose()
        assert await listener.heard() == [("oban_schedule", {})]
        assert await woken() == [Wakeup(frozenset("a")), Wakeup(queues=None)]

    async def test_a_scoped_session_is_heard(
        self, session_factory: Sessions, woken: Woken, listener: Listener
    ) -> None:
        session = scoped_session(session_factory)
        session.add(job("a"))
        session.commit()
        assert session.info == {}
        session.remove()
        assert await woken() == [Wakeup(frozenset("a"))]
        assert await listener.heard() == news("a")

    async def test_entries_of_the_user_in_session_info_are_kept(self, sync_engine_: Engine) -> None:
        with Session(sync_engine_, info={"mine": 1}) as session:
            session.add(job())
            session.flush()
            assert session.info["mine"] == 1
            session.commit()
            assert session.info == {"mine": 1}

    @pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
    async def test_each_async_driver_is_heard(
        self, postgres_dsn: str, prefix: str, driver: str, listener: Listener
    ) -> None:
        engine = async_engine(postgres_dsn, prefix, driver)
        async with AsyncSession(engine) as session, session.begin():
            session.add_all([job("a"), job("b", scheduled_at=SOON)])
            await session.flush()
            session.add(job("c"))
            await session.execute(insert(Job), [_values()])
        await engine.dispose()
        assert await listener.heard() == [*news("a"), SOON_NEWS, *news("c"), ("oban_schedule", {})]

    async def test_a_job_can_be_pickled(self, session_factory: Sessions) -> None:
        with session_factory.begin() as session:
            session.add(stored := Send.new({"n": 1}))
        copy = pickle.loads(pickle.dumps(stored))
        assert (copy.id, copy.args, copy.state) == (stored.id, {"n": 1}, JobState.AVAILABLE)
        unsaved = pickle.loads(pickle.dumps(Send.new({"n": 2})))
        with session_factory.begin() as session:
            session.add(unsaved)
        assert unsaved.id > copy.id


class TestListeners:
    async def test_attaching_twice_announces_once(
        self, session_factory: Sessions, sent: list[str], woken: Woken
    ) -> None:
        unit_of_work.attach()
        with session_factory.begin() as session:
            session.add(job())
        assert notifies(sent) == 1
        assert len(await woken()) == 1

    async def test_detached_listeners_announce_nothing(
        self, session_factory: Sessions, sent: list[str], woken: Woken, observer: Observer
    ) -> None:
        with detached():
            unit_of_work.detach()
            with session_factory.begin() as session:
                session.add(job())
                session.flush()
                session.execute(insert(Job), [_values()])
        assert len(await observer.jobs()) == 2
        assert notifies(sent) == 0
        assert await woken() == []


class TestRunningInstances:
    """Instances that are woken. Their polls are too slow to help."""

    async def test_a_commit_in_a_thread_wakes_an_instance_that_does_not_listen(
        self, start: StartOban, session_factory: Sessions
    ) -> None:
        oban = await start(queues={"mailers": 5}, notify="poll", poll_interval=300.0)

        def work() -> None:
            with session_factory.begin() as session:
                session.add(job())
                session.add(job(schedule_in=0.05))

        with hear(oban, "ack_stop") as acks:
            await asyncio.to_thread(work)
            await acks.counted(2)

    async def test_notify_wakes_an_instance_that_no_short_cut_reaches(
        self, start: StartOban, postgres_dsn: str
    ) -> None:
        with hear(Oban, "notifier_restored"):
            oban = await start(queues={"mailers": 5}, fallback_interval=300.0)
        with hear(oban, "ack_stop") as acks:
            async with await psycopg.AsyncConnection.connect(postgres_dsn) as conn:
                await oban.enqueue_many(job(), job(schedule_in=0.05), conn=conn)
            await acks.counted(2)
