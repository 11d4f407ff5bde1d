"""Mistakes while enqueueing: each message names the remedy, before anything is sent."""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from oban_sqla import InstanceNotFoundError, Job, Oban, Worker, job
from tests.databases import User, async_engine, sync_engine

Sessions = async_sessionmaker[AsyncSession]

ELSEWHERE = "nothing_is_here"
INSTALL = "install the tables with `oban-sqla schema upgrade"


class Mailer(Worker, name="mistakes.enqueueing.Mailer"):
    async def process(self, job: Job) -> None: ...


@job(name="mistakes.enqueueing.report")
def report(month: str, detailed: bool = False) -> None: ...


def fails(kind: type[Exception], message: str) -> Any:
    return pytest.raises(kind, match=re.escape(message))


class TestMissingTables:
    """The tables are missing, or in another schema: the traceback ends with the remedy."""

    async def test_a_session_names_the_missing_tables(self, postgres_dsn: str) -> None:
        engine = async_engine(postgres_dsn, ELSEWHERE)
        with pytest.raises(ProgrammingError) as raised:
            async with AsyncSession(engine) as session, session.begin():
                session.add(Mailer.new())
        await engine.dispose()
        _says_how_to_install(raised.value)

    @pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
    def test_a_sync_session_names_the_missing_tables(self, postgres_dsn: str, driver: str) -> None:
        engine = sync_engine(postgres_dsn, ELSEWHERE, driver)
        with pytest.raises(ProgrammingError) as raised, Session(engine) as session, session.begin():
            session.add(Mailer.new())
        engine.dispose()
        _says_how_to_install(raised.value)

    @pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
    async def test_an_instance_names_the_missing_tables(
        self, postgres_dsn: str, driver: str
    ) -> None:
        engine = async_engine(postgres_dsn, ELSEWHERE, driver)
        oban = Oban(engine)
        for attempt in (
            oban.enqueue(Mailer.new()),
            oban.cancel_jobs(1),
            oban.pause_queue("mailers"),
        ):
            with pytest.raises(ProgrammingError) as raised:
                await attempt
            _says_how_to_install(raised.value)
        await engine.dispose()

    async def test_errors_about_other_tables_are_unchanged(self, engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            with pytest.raises(ProgrammingError) as raised:
                await connection.execute(text("SELECT 'oban_jobs' FROM nothing_here"))
        assert not hasattr(raised.value, "__notes__")


def _says_how_to_install(error: BaseException) -> None:
    (note,) = error.__notes__
    assert INSTALL in note
    assert "schema_translate_map" in note


class TestAwait:
    async def test_a_forgotten_await_is_warned_of(self, sessions: Sessions) -> None:
        async with sessions() as session:
            with pytest.warns(RuntimeWarning, match=r"'Worker.enqueue' was never awaited"):
                Mailer.enqueue(conn=session)  # type: ignore[unused-coroutine]

    async def test_a_coroutine_in_place_of_a_job_is_refused(self, engine: AsyncEngine) -> None:
        with fails(TypeError, "can only enqueue a Job, such as Worker.new({...}) makes; got <cor"):
            await Oban(engine).enqueue(forgotten := Mailer.enqueue())  # type: ignore[arg-type]
        forgotten.close()

    async def test_a_worker_in_place_of_a_job_is_refused(self, engine: AsyncEngine) -> None:
        with fails(TypeError, "can only enqueue a Job, such as Worker.new({...}) makes; got <cl"):
            await Oban(engine).enqueue(Mailer)  # type: ignore[arg-type]


class TestTimes:
    def test_a_naive_datetime_is_utc(self) -> None:
        noon = Mailer.new(scheduled_at=datetime(2026, 12, 1, 12))
        assert noon.scheduled_at == datetime(2026, 12, 1, 12, tzinfo=UTC)

    def test_a_value_of_the_wrong_option_is_refused(self) -> None:
        with fails(TypeError, "scheduled_at must be a datetime, not datetime.timedelta(seconds=60"):
            Mailer.new(scheduled_at=timedelta(minutes=1))  # type: ignore[arg-type]
        with fails(TypeError, "schedule_in must be a timedelta or seconds, not datetime.datetime"):
            Mailer.new(schedule_in=datetime(2026, 12, 1))  # type: ignore[arg-type]

    def test_two_times_are_refused(self) -> None:
        with fails(ValueError, "exclude each other: give one"):
            Mailer.new(scheduled_at=datetime(2026, 12, 1), schedule_in=60)


class TestArguments:
    @pytest.mark.parametrize(
        "value", [date(2026, 12, 1), Decimal("1.5"), UUID(int=1), {1}, b"x", object()]
    )
    def test_arguments_that_are_no_json_are_refused(self, value: object) -> None:
        with pytest.raises(TypeError, match=r"args\['order'\]\['x'\] is a \w+, not JSON: .*; pass"):
            Mailer.new({"order": {"x": value}})

    def test_arguments_given_by_name_are_refused(self) -> None:
        with fails(TypeError, "arguments of the job are given in a mapping, like new({'id': 1})"):
            Mailer.new(email="ann@shop.test")  # type: ignore[call-arg]

    def test_arguments_that_are_no_mapping_are_refused(self) -> None:
        with fails(TypeError, "args must be a mapping of strings to JSON values, not [1]"):
            Mailer.new([1])  # type: ignore[arg-type]

    def test_arguments_that_do_not_fit_the_function_are_refused(self) -> None:
        with fails(TypeError, "mistakes.enqueueing.report(month: str, detailed: bool = False"):
            report.new()  # type: ignore[call-arg]
        with fails(TypeError, "has no argument 'detailled'; did you mean 'detailed'?"):
            report.new("2026-11", detailled=True)  # type: ignore[call-overload]


class TestOptions:
    def test_a_misspelt_option_gets_a_suggestion(self) -> None:
        with fails(TypeError, "has no option 'prioritty'; did you mean 'priority'?"):
            Mailer.new(prioritty=1)  # type: ignore[call-arg]

    def test_an_option_out_of_range_is_refused(self) -> None:
        with fails(ValueError, "priority must be from 0 to 9, got 10"):
            Mailer.new(priority=10)


class TestConn:
    async def test_an_object_that_is_no_connection_is_refused(
        self, engine: AsyncEngine, sessions: Sessions, session_factory: sessionmaker[Session]
    ) -> None:
        for wrong in (engine, sessions, session_factory, "postgresql://localhost/shop", 5):
            with fails(TypeError, "conn must be an AsyncSession, async_scoped_session, Session, "):
                await Mailer.enqueue(conn=wrong)  # type: ignore[arg-type]
        for source in (engine, sessions, session_factory):
            with fails(TypeError, "; pass what its begin() gives, as in `async with "):
                await Mailer.enqueue(conn=source)  # type: ignore[arg-type]

    async def test_no_conn_and_no_instance_is_an_error(self) -> None:
        with fails(InstanceNotFoundError, "build one with Oban(engine), or pass the session or"):
            await Mailer.enqueue()

    async def test_a_session_whose_block_has_committed_is_refused(self, sessions: Sessions) -> None:
        async with sessions.begin() as session:
            await session.commit()
            with fails(InvalidRequestError, "Can't operate on closed transaction"):
                await Mailer.enqueue(conn=session)

    async def test_a_closed_session_is_refused(self, engine: AsyncEngine) -> None:
        session = AsyncSession(engine, close_resets_only=False)
        await session.close()
        with fails(InvalidRequestError, "permanently closed"):
            await Mailer.enqueue(conn=session)


class TestJobAfterItsCommit:
    async def test_an_expired_job_says_how_to_read_it(self, engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            job = await Mailer.enqueue(conn=session)
            await session.commit()
            with pytest.raises(SQLAlchemyError, match="greenlet_spawn has not been") as raised:
                _ = job.id
        (note,) = raised.value.__notes__
        assert "make sessions with expire_on_commit=False" in note

    async def test_an_expired_job_can_be_waited_for_and_shown(self, engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            job = await Mailer.enqueue(conn=session)
            await session.commit()
        assert repr(job) == "<Job id=1>"
        with fails(TimeoutError, "job 1 was not finished"):
            await Oban(engine).wait(job, timeout=0.01)

    async def test_an_expired_job_can_not_be_enqueued_again(self, engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            job = await Mailer.enqueue(conn=session)
            await session.commit()
        with fails(ValueError, "make another job with new()"):
            await Oban(engine).enqueue(job)


async def test_errors_about_expired_instances_of_other_models_are_unchanged(
    engine: AsyncEngine,
) -> None:
    async with AsyncSession(engine) as session:
        session.add(user := User(name="Ann"))
        await session.commit()
        with pytest.raises(SQLAlchemyError, match="greenlet_spawn has not been") as raised:
            _ = user.id
    assert not hasattr(raised.value, "__notes__")
