"""Sessions that route statements: jobs are completed, and rows loaded, where they are written."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Delete, Engine, Insert, Update, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from oban_sqla import Job, JobState, Oban, Worker
from tests.conftest import StartOban
from tests.databases import async_engine
from tests.listening import hear

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase): ...


class Account(Base):
    __tablename__ = "routing_accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(default=100)


class Spend(Worker, name="routing.spend", max_attempts=1):
    async def process(self, job: Job, session: AsyncSession) -> None:
        job.args["account"].balance -= 10


class SpendPlainly(Worker, name="routing.plain", max_attempts=1):
    def process(self, job: Job, session: Session) -> None:
        job.args["account"].balance -= 10


class Own(Worker, Base, name="routing.own", lock="update"):
    __tablename__ = "routing_own"
    id: Mapped[int] = mapped_column(primary_key=True)
    done: Mapped[int] = mapped_column(default=0)

    async def process(self, job: Job, session: AsyncSession) -> None:
        self.done += 1


@pytest.fixture
async def replica(postgres_dsn: str, prefix: str) -> Any:
    """An engine that refuses writes, and lags: it has no rows of the user."""
    read_only = {"options": "-c default_transaction_read_only=on"}
    engine = async_engine(postgres_dsn, f"behind_{prefix}", connect_args=read_only)
    yield engine
    await engine.dispose()


@pytest.fixture
async def tables(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        for change in (Base.metadata.drop_all, Base.metadata.create_all):
            await session.run_sync(lambda s, change=change: change(s.connection()))


def routing(leader: AsyncEngine, replica: AsyncEngine) -> type[Session]:
    """A session class as in SQLAlchemy's documentation."""

    class RoutingSession(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **kw: Any) -> Engine:  # type: ignore[override]
            if self._flushing or isinstance(clause, Update | Delete | Insert):
                return leader.sync_engine
            return replica.sync_engine

    return RoutingSession


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("worker", [Spend, SpendPlainly])
async def test_a_job_completes_through_the_engine_that_writes(
    start: StartOban,
    sessions: Sessions,
    engine: AsyncEngine,
    replica: AsyncEngine,
    worker: type[Worker],
) -> None:
    async with sessions.begin() as session:
        session.add_all([account := Account(id=1), worker.new({"account": account})])
    given = async_sessionmaker(engine, sync_session_class=routing(engine, replica))
    assert await states(start, given) == [JobState.COMPLETED]
    async with sessions() as session:
        assert (await session.get_one(Account, 1)).balance == 90


@pytest.mark.usefixtures("tables")
async def test_a_model_worker_is_locked_by_the_engine_that_writes(
    start: StartOban, sessions: Sessions, engine: AsyncEngine, replica: AsyncEngine
) -> None:
    async with sessions.begin() as session:
        session.add_all([own := Own(id=1), own.new()])
    given = async_sessionmaker(engine, sync_session_class=routing(engine, replica))
    assert await states(start, given) == [JobState.COMPLETED]
    async with sessions() as session:
        assert (await session.get_one(Own, 1)).done == 1


@pytest.mark.usefixtures("tables")
async def test_binds_of_models_are_respected(
    start: StartOban, sessions: Sessions, engine: AsyncEngine, replica: AsyncEngine
) -> None:
    async with sessions.begin() as session:
        session.add_all([account := Account(id=1), Spend.new({"account": account})])
    given = async_sessionmaker(engine, binds={Base: engine, Job: engine})
    assert await states(start, given) == [JobState.COMPLETED]


@pytest.mark.usefixtures("tables")
async def test_the_changes_of_the_worker_and_the_completion_are_one_transaction(
    start: StartOban, sessions: Sessions, engine: AsyncEngine, replica: AsyncEngine
) -> None:
    """The job is claimed by another node meanwhile, so no change is kept."""
    async with sessions.begin() as session:
        session.add_all([account := Account(id=1), Lose.new({"account": account})])
    Lose.sessions = sessions
    given = async_sessionmaker(engine, sync_session_class=routing(engine, replica))
    with hear(Oban, "ack_stop") as acks:
        oban = await start(given, queues={"default": 1})
        (ack,) = await acks.wait()
    await oban.stop()
    assert len(ack.dropped) == 1
    async with sessions() as session:
        assert (await session.get_one(Account, 1)).balance == 100


class Lose(Worker, name="routing.lose"):
    sessions: Callable[[], Any]

    async def process(self, job: Job, session: AsyncSession) -> None:
        job.args["account"].balance -= 10
        await session.flush()
        async with Lose.sessions.begin() as other:  # type: ignore[attr-defined]
            (own,) = await other.scalars(select(Job))
            own.attempt += 1


async def states(start: StartOban, given: Any) -> list[JobState]:
    with hear(Oban, "ack_stop") as acks:
        oban = await start(given, queues={"default": 1})
        await acks.wait()
    await oban.stop()
    async with oban._database.session() as session:
        return list(await session.scalars(select(Job.state)))
