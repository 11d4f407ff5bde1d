"""One statement inserts pending jobs, which otherwise behave like any object of a session."""

import gc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import BigInteger, Engine, ForeignKey, event, func, inspect, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    sessionmaker,
)

from oban_sqla import Job, JobState, Worker
from tests.databases import User
from tests.factories import JobFactory

Sessions = sessionmaker[Session]


class Send(Worker, name="tests.pending.Send"):
    async def process(self, job: Job) -> None: ...


class Base(DeclarativeBase):
    """The base of the user's models, with metadata of its own."""


class Export(Base):
    """A row of the user's that refers to its job."""

    __tablename__ = "pending_exports"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(BigInteger, ForeignKey(Job.id))
    job: Mapped[Job] = relationship(Job)


@pytest.fixture
def statements(session_factory: Sessions) -> Iterator[list[str]]:
    """The statements that change something."""
    sent: list[str] = []

    def listener(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "INSERT" in statement or "UPDATE" in statement:
            sent.append(statement)

    engine = session_factory.kw["bind"]
    event.listen(engine, "before_cursor_execute", listener)
    yield sent
    event.remove(engine, "before_cursor_execute", listener)


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Job)) or 0


class TestTheFlush:
    def test_any_number_of_jobs_is_one_statement(
        self, session_factory: Sessions, statements: list[str]
    ) -> None:
        with session_factory.begin() as session:
            jobs = [Send.new({"n": n}) for n in range(1000)]
            session.add_all([*jobs, User(name="ann")])
            session.flush()
            assert len(statements) == 2
            assert [job.id for job in jobs] == sorted(job.id for job in jobs)
            assert session.scalars(select(Job).order_by(Job.id)).all() == jobs
        assert len(statements) == 2

    def test_a_job_is_persistent_and_clean(self, session_factory: Sessions) -> None:
        with session_factory.begin() as session:
            session.add(job := Send.new({"n": 1}, tags=["a"]))
            session.flush()
            assert inspect(job).persistent
            assert job not in session.dirty
            assert not inspect(job).expired_attributes
            assert session.get(Job, job.id) is job
            job.priority = 3
        with session_factory() as session:
            assert session.scalars(select(Job.priority)).all() == [3]

    def test_a_job_is_loaded_again_after_the_commit(self, session_factory: Sessions) -> None:
        with session_factory(expire_on_commit=True) as session:
            session.add(job := Send.new({"n": 1}))
            session.commit()
            assert inspect(job).expired
            assert job.args == {"n": 1}

    def test_listeners_of_the_session_hear_of_a_job(self, session_factory: Sessions) -> None:
        told: list[tuple[str, type]] = []
        with session_factory() as session:
            for name in ("transient_to_pending", "pending_to_persistent", "pending_to_transient"):
                event.listen(
                    session, name, lambda _, one, name=name: told.append((name, type(one)))
                )
            session.add_all([Send.new(), User(name="ann")])
            session.flush()
        assert [name for name, kind in told if kind is Job] == [
            name for name, kind in told if kind is User
        ]

    def test_a_value_that_the_job_lost_is_loaded_from_its_row(
        self, session_factory: Sessions
    ) -> None:
        job = Send.new()
        del job.attempt
        with session_factory() as session:
            session.add(job)
            session.flush()
            assert job.attempt == 0

    def test_a_row_may_refer_to_its_job(self, session_factory: Sessions) -> None:
        with session_factory() as session:
            Export.__table__.create(session.connection())
            session.add(export := Export(job=Send.new({"n": 1})))
            session.flush()
            assert export.job_id == export.job.id
            assert inspect(export.job).persistent
            session.rollback()

    def test_a_job_may_be_deleted_in_the_session_that_added_it(
        self, session_factory: Sessions
    ) -> None:
        with session_factory.begin() as session:
            session.add(job := Send.new())
            session.flush()
            session.delete(job)
            session.flush()
            assert count(session) == 0

    def test_a_partial_flush_inserts_only_its_jobs(
        self, session_factory: Sessions, recwarn: pytest.WarningsRecorder
    ) -> None:
        with session_factory.begin() as session:
            first, second = Send.new({"n": 1}), Send.new({"n": 2})
            session.add_all([first, second])
            session.flush([first])
            assert inspect(first).persistent
            assert inspect(second).pending

    @pytest.mark.parametrize("trait", ["executing", "retryable", "completed"])
    def test_jobs_in_other_states_are_inserted_unchanged(
        self, session_factory: Sessions, trait: str
    ) -> None:
        with session_factory.begin() as session:
            session.add_all([JobFactory(**{trait: True}), Send.new()])
        with session_factory() as session:
            states = session.scalars(select(Job.state).order_by(Job.id)).all()
            assert sorted(states) == sorted([JobState(trait), JobState.AVAILABLE])
            assert session.scalars(select(Job).where(Job.state == trait)).one().attempt == 1

    def test_a_given_inserted_at_is_kept(self, session_factory: Sessions) -> None:
        long_ago = datetime(2001, 1, 1, tzinfo=UTC)
        job = Send.new()
        job.inserted_at = long_ago
        with session_factory.begin() as session:
            session.add(job)
        with session_factory() as session:
            assert session.scalars(select(Job.inserted_at)).all() == [long_ago]

    @pytest.mark.parametrize("name", ["before_insert", "after_insert"])
    def test_other_listeners_of_inserts_are_called(
        self, session_factory: Sessions, name: str
    ) -> None:
        heard: list[Job] = []

        def listener(mapper: Any, connection: Any, job: Job) -> None:
            heard.append(job)

        event.listen(Job, name, listener)
        try:
            with session_factory.begin() as session:
                session.add(job := Send.new())
                session.flush()
                assert heard == [job]
                assert inspect(job).persistent
        finally:
            event.remove(Job, name, listener)

    def test_a_job_of_a_before_flush_listener_is_inserted(self, session_factory: Sessions) -> None:
        with session_factory.begin() as session:

            @event.listens_for(session, "before_flush")
            def add(session: Session, context: Any, objects: Any) -> None:
                if any(isinstance(new, User) for new in session.new):
                    session.add(Send.new({"late": True}))

            session.add(User(name="ann"))
        with session_factory() as session:
            assert session.scalars(select(Job.args)).all() == [{"late": True}]

    async def test_concurrent_sessions_keep_their_jobs_apart(
        self, sessions: async_sessionmaker[AsyncSession]
    ) -> None:
        async with sessions() as one, sessions() as other:
            one.add_all([first := Send.new({"n": 1}), User(name="ann")])
            other.add_all([second := Send.new({"n": 2}), User(name="bob")])
            await one.flush()
            await other.flush()
            assert first.id != second.id
            await one.rollback()
            await other.commit()
            assert (await one.scalars(select(Job.args))).all() == [{"n": 2}]


class TestRollback:
    """After a rollback a job is transient again and keeps its attributes, like any object."""

    def test_a_job_is_transient_after_a_rollback(self, session_factory: Sessions) -> None:
        with session_factory() as session:
            session.add(job := Send.new({"n": 1}))
            session.flush()
            session.rollback()
            assert inspect(job).transient
            assert job not in session
            assert (job.args, job.state, job.id) == ({"n": 1}, JobState.AVAILABLE, None)
            session.add(job)
            session.commit()
            assert session.scalars(select(Job.id)).all() == [job.id]

    def test_an_executing_job_can_be_added_again(self, session_factory: Sessions) -> None:
        with session_factory() as session:
            session.add(job := JobFactory(executing=True))
            session.flush()
            gone = job.id
            session.rollback()
            session.add(job)
            session.commit()
            assert job.id != gone
            assert session.scalars(select(Job.id)).all() == [job.id]

    def test_a_savepoint_makes_only_its_jobs_transient(self, session_factory: Sessions) -> None:
        with session_factory.begin() as session:
            session.add(before := Send.new({"n": 1}))
            savepoint = session.begin_nested()
            session.add(inside := Send.new({"n": 2}))
            session.flush()
            savepoint.rollback()
            assert inspect(before).persistent
            assert inspect(inside).transient
            session.add(Send.new({"n": 3}))
        with session_factory() as session:
            assert session.scalars(select(Job.args).order_by(Job.id)).all() == [{"n": 1}, {"n": 3}]

    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_jobs_of_released_savepoints_become_transient(
        self, session_factory: Sessions, depth: int
    ) -> None:
        with session_factory() as session:
            savepoints = [session.begin_nested() for _ in range(depth)]
            session.add(job := Send.new({"n": 1}))
            for savepoint in reversed(savepoints):
                savepoint.commit()
            assert inspect(job).persistent
            session.rollback()
            assert inspect(job).transient
            assert job.args == {"n": 1}

    def test_jobs_of_inner_savepoints_become_transient(self, session_factory: Sessions) -> None:
        with session_factory.begin() as session:
            outer = session.begin_nested()
            session.begin_nested()
            session.add(job := Send.new())
            session.flush()
            outer.rollback()
            assert inspect(job).transient
            assert count(session) == 0

    def test_a_change_since_the_flush_is_kept(self, session_factory: Sessions) -> None:
        with session_factory() as session:
            session.add(job := Send.new())
            session.flush()
            job.priority = 7
            session.rollback()
            assert job.priority == 7

    def test_a_failure_of_another_object_makes_jobs_transient(
        self, session_factory: Sessions
    ) -> None:
        with session_factory() as session:
            session.add_all([job := Send.new({"n": 1}), User(name=None)])
            with pytest.raises(IntegrityError):
                session.flush()
            session.rollback()
            assert inspect(job).transient
            session.add(job)
            session.commit()
            assert session.scalars(select(Job.args)).all() == [{"n": 1}]

    def test_a_failed_insert_makes_jobs_transient(
        self, session_factory: Sessions, engine_: Engine
    ) -> None:
        def fail(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
            if "INSERT" in statement:
                cursor.execute("SELECT 1/0")

        with session_factory() as session:
            session.add(User(name="ann"))
            session.flush()
            savepoint = session.begin_nested()
            session.add(job := Send.new({"n": 1}))
            event.listen(engine_, "before_cursor_execute", fail)
            # SQLAlchemy 2.0 does not wrap the errors of listeners.
            with pytest.raises((DBAPIError, psycopg.errors.DivisionByZero)):
                session.flush()
            event.remove(engine_, "before_cursor_execute", fail)
            savepoint.rollback()
            assert inspect(job).transient
            session.add(job)
            session.commit()
            assert session.scalars(select(User.name)).all() == ["ann"]
            assert session.scalars(select(Job.args)).all() == [{"n": 1}]

    @pytest.mark.parametrize("unique", [False, True])
    def test_an_expunged_job_does_not_disturb_the_rollback(
        self, session_factory: Sessions, unique: bool
    ) -> None:
        with session_factory() as session:
            session.add_all([job := Send.new(unique=unique), user := User(name="ann")])
            session.flush()
            session.expunge(job)
            session.expunge(user)
            session.rollback()
            assert inspect(user).transient
            assert inspect(job).transient
            assert job.id is None

    def test_the_session_keeps_no_unreferenced_jobs(self, session_factory: Sessions) -> None:
        with session_factory() as session:
            session.add_all(Send.new({"n": n}) for n in range(10))
            session.flush()
            gc.collect()
            assert not [one for one in session if isinstance(one, Job)]
            session.rollback()

    async def test_a_job_of_an_async_session_is_transient(
        self, sessions: async_sessionmaker[AsyncSession]
    ) -> None:
        async with sessions() as session:
            session.add(job := Send.new({"n": 1}))
            await session.flush()
            await session.rollback()
            assert inspect(job).transient
            assert job.args == {"n": 1}


@pytest.fixture
def engine_(session_factory: Sessions) -> Engine:
    return session_factory.kw["bind"]
