"""The transaction of a worker's session ends only with the completion of the job."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from oban_sqla import Job, ObanError, Worker
from oban_sqla.testing import drain_queue
from tests.conftest import StartOban
from tests.databases import async_engine
from tests.listening import hear

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase): ...


class Account(Base):
    __tablename__ = "kept_open_accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(default=100)


then: Callable[[Any], Any]


class Spend(Worker, name="kept_open.spend", max_attempts=1):
    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.execute(update(Account).values(balance=0))
        await then(session)


class SpendPlainly(Worker, name="kept_open.plain", max_attempts=1):
    def process(self, job: Job, session: Session) -> None:
        session.execute(update(Account).values(balance=0))
        then(session)


@pytest.fixture
async def balance(sessions: Sessions) -> Callable[[], Any]:
    async with sessions.begin() as session:
        for change in (Base.metadata.drop_all, Base.metadata.create_all):
            await session.run_sync(lambda s, change=change: change(s.connection()))
        session.add(Account(id=1))

    async def balance() -> Any:
        async with sessions() as session:
            return await session.scalar(select(Account.balance))

    return balance


async def fail(
    start: StartOban,
    worker: type[Worker],
    endings: Sequence[Any],
    engine: AsyncEngine | None = None,
) -> list[BaseException]:
    """The errors of jobs whose worker ends the transaction in these ways."""
    global then
    oban = await start(engine, queues={"default": 1})
    with hear(oban, "job_exception") as failures:
        for number, ending in enumerate(endings, 1):
            then = ending
            await oban.enqueue(worker.new())
            await failures.wait(number)
    await oban.stop()
    return [failure.error for failure in failures.events]


async def commit(session: AsyncSession) -> None:
    await session.commit()


async def commit_the_connection(session: AsyncSession) -> None:
    await (await session.connection()).commit()


async def commit_the_transaction(session: AsyncSession) -> None:
    await session.get_transaction().commit()  # type: ignore[union-attr]


def execute(statement: str) -> Callable[[AsyncSession], Any]:
    async def ending(session: AsyncSession) -> None:
        await session.execute(text(statement))

    return ending


async def execute_by_the_driver(session: AsyncSession) -> None:
    await (await session.connection()).exec_driver_sql("COMMIT")


ENDINGS = [
    commit,
    commit_the_connection,
    commit_the_transaction,
    execute_by_the_driver,
    *map(execute, ["COMMIT", " ;commit and chain", "/* a */ -- b\nEND", "ROLLBACK", "abort"]),
    *map(execute, ["rollback work", "PREPARE TRANSACTION 'x'"]),
]
PLAIN_ENDINGS = [
    lambda session: session.commit(),
    lambda session: session.connection().commit(),
    lambda session: session.execute(text("COMMIT")),
]


@pytest.mark.parametrize(("worker", "endings"), [(Spend, ENDINGS), (SpendPlainly, PLAIN_ENDINGS)])
async def test_a_commit_by_the_worker_is_refused(
    start: StartOban, balance: Any, expect_errors: None, worker: Any, endings: list[Any]
) -> None:
    errors = await fail(start, worker, endings)
    assert len(errors) == len(endings)
    for error in errors:
        assert isinstance(error, ObanError)
        assert "leave the commit out" in str(error)
    assert await balance() == 100


async def commit_the_driver(session: AsyncSession) -> None:
    raw = await (await session.connection()).get_raw_connection()
    driver: Any = raw.driver_connection
    await (driver.commit() if hasattr(driver, "commit") else driver.execute("COMMIT"))


async def commit_the_driver_and_go_on(session: AsyncSession) -> None:
    await commit_the_driver(session)
    await session.execute(select(Account))


async def roll_the_connection_back(session: AsyncSession) -> None:
    await (await session.connection()).rollback()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_an_end_of_the_transaction_that_is_noticed_late_fails_the_job(
    start: StartOban,
    balance: Any,
    expect_errors: None,
    postgres_dsn: str,
    prefix: str,
    driver: str,
) -> None:
    engine = async_engine(postgres_dsn, prefix, driver)
    endings = [commit_the_driver, commit_the_driver_and_go_on, roll_the_connection_back]
    errors = await fail(start, Spend, endings, engine)
    await engine.dispose()
    assert len(errors) == len(endings)
    for error in errors:
        assert isinstance(error, ObanError)
        assert "has ended before the job's completion" in str(error)


async def test_a_worker_may_use_savepoints_and_roll_back_its_session(
    start: StartOban, balance: Any
) -> None:
    async def change(session: AsyncSession) -> None:
        await session.rollback()
        await session.execute(text("SAVEPOINT mine"))
        await session.execute(update(Account).values(balance=1))
        await session.execute(text("ROLLBACK TO SAVEPOINT mine"))
        await session.execute(text("rollback work to mine"))
        async with session.begin_nested():
            await session.execute(update(Account).values(balance=Account.balance + 7))

    global then
    then = change
    oban = await start(queues={"default": 1})
    with hear(oban, "job_stop") as stops:
        await oban.enqueue(Spend.new())
        await stops.wait()
    await oban.stop()
    assert await balance() == 107


def test_process_job_does_not_let_the_worker_commit_the_test(
    session_factory: sessionmaker[Session],
) -> None:
    global then
    then = lambda session: session.connection().commit()  # noqa: E731
    with session_factory() as session:
        Base.metadata.create_all(session.connection())
        session.add(SpendPlainly.new())
        # SQLAlchemy gives up the whole transaction if its commit fails.
        with pytest.raises(PendingRollbackError):
            drain_queue(session)
    with session_factory() as session:
        assert session.scalars(select(Job)).all() == []
