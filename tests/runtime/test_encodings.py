"""Databases in other encodings than UTF8: storable values work, and other values break no
transaction.
"""

import os
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from oban_sqla import Cancel, Job, JobState, Oban, ObanError, Worker
from oban_sqla.migrations import upgrade
from oban_sqla.migrations.database import engine_for
from tests.listening import hear


class Failing(Worker, name="encodings.failing", max_attempts=1):
    async def process(self, job: Job) -> None:
        raise ValueError("東京 is not café")


class Cancelling(Worker, name="encodings.cancelling"):
    async def process(self, job: Job) -> Cancel:
        return Cancel("東京")


class Quiet(Worker, name="encodings.quiet"):
    async def process(self, job: Job) -> None: ...


@pytest.fixture(params=["LATIN1", "SQL_ASCII"], scope="module")
def encoding(request: pytest.FixtureRequest) -> str:
    encoding: str = request.param
    return encoding


@pytest.fixture(scope="module")
def database(encoding: str, postgres_dsn: str) -> Iterator[str]:
    """A database in this encoding, with the tables."""
    # Other processes of this test run use the same server.
    name = sql.Identifier(f"test_{encoding.lower()}_{os.getpid()}")
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        create = "CREATE DATABASE {} ENCODING {} LOCALE 'C' TEMPLATE template0"
        connection.execute(sql.SQL(create).format(name, sql.Literal(encoding)))
        url = make_url(postgres_dsn).set(database=name.as_string(None).strip('"'))
        dsn = url.render_as_string(hide_password=False)
        migrating = engine_for(dsn)
        with migrating.begin() as migration:
            upgrade(migration)
        migrating.dispose()
        yield dsn
        connection.execute(sql.SQL("DROP DATABASE {}").format(name))


@pytest.fixture
def dsn(database: str) -> Iterator[str]:
    yield database
    with psycopg.connect(database) as connection:
        connection.execute("DELETE FROM oban_jobs")


@pytest.fixture(params=["psycopg", "asyncpg"])
async def engine(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[AsyncEngine]:
    arguments = {"client_encoding": "utf8"} if request.param == "psycopg" else {}
    url = make_url(dsn).set(drivername=f"postgresql+{request.param}")
    engine = create_async_engine(url, connect_args=arguments)
    yield engine
    await engine.dispose()


async def test_errors_are_stored_with_escapes(
    engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with Oban(engine, queues={"default": 5}) as oban:
        jobs = await oban.enqueue_many(Failing.new(), Cancelling.new(), Quiet.new())
        failed, cancelled, done = await oban.wait_many(jobs, timeout=10)
    assert failed.state is JobState.DISCARDED
    assert failed.errors[0]["error"].endswith("ValueError: \\u6771\\u4eac is not caf\\xe9\n")
    assert cancelled.state is JobState.CANCELLED
    assert "\\u6771" in cancelled.errors[0]["error"]
    assert done.state is JobState.COMPLETED
    caplog.clear()


async def test_characters_that_the_database_can_not_hold_are_refused(
    encoding: str, engine: AsyncEngine
) -> None:
    message = (
        f"args has the character '東', which the database can't hold: its encoding is {encoding}"
    )
    oban = Oban(engine)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    with pytest.raises(ValueError, match=message):
        await oban.enqueue(Quiet.new({"city": ["東京"]}))
    async with engine.begin() as connection:
        with pytest.raises(ValueError, match=message):
            await Quiet.enqueue({"city": {"name": "東京"}}, conn=connection)
        # The transaction can go on.
        await Quiet.enqueue({"city": "Tokyo"}, conn=connection)
    async with sessions.begin() as session:
        job = Quiet.new({"東": 1})
        session.add(job)
        with pytest.raises(ValueError, match=message):
            await session.flush()
        session.expunge(job)
        session.add(Quiet.new({"city": "Kyoto"}))
    async with sessions() as session:
        found = await session.scalars(select(Job).order_by(Job.id))
        assert [job.args["city"] for job in found] == ["Tokyo", "Kyoto"]


@pytest.mark.parametrize("encoding", ["LATIN1"], indirect=True)
async def test_characters_that_the_database_can_hold_arrive(engine: AsyncEngine) -> None:
    async with Oban(engine, queues={"default": 5}) as oban:
        done = await oban.wait(await oban.enqueue(Quiet.new({"name": "café"})), timeout=10)
    assert (done.state, done.args) == (JobState.COMPLETED, {"name": "café"})


async def test_arguments_of_another_program_arrive(dsn: str) -> None:
    url = make_url(dsn).update_query_dict({"client_encoding": "utf8"})
    engine = create_async_engine(url.set(drivername="postgresql+psycopg"))
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO oban_jobs (worker, args) VALUES (:worker, CAST(:args AS jsonb))"),
            {"worker": Quiet.new().worker, "args": '{"name": "Müller"}'},
        )
    oban = Oban(engine, queues={"default": 9})
    with hear(oban, "job_stop") as stops:
        async with oban:
            await stops.wait()
    await engine.dispose()
    (stop,) = stops.events
    assert stop.job.args == {"name": "Müller"}


async def test_a_url_needs_no_encoding(dsn: str) -> None:
    async with Oban(dsn, queues={"default": 5}) as oban:
        done = await oban.wait(await oban.enqueue(Quiet.new()), timeout=10)
    assert done.state is JobState.COMPLETED


@pytest.mark.parametrize("encoding", ["LATIN1"], indirect=True)
async def test_connections_in_another_encoding_are_refused_at_the_start(dsn: str) -> None:
    engine = create_async_engine(make_url(dsn).set(drivername="postgresql+psycopg"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SHOW client_encoding")) == "LATIN1"
    with pytest.raises(ObanError, match=r"client_encoding.*utf8"):
        await Oban(engine, queues={"default": 1}).start()
    await engine.dispose()
