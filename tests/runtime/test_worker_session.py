"""Workers that take a session: their changes and the completion of the job are one transaction."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from oban_sqla import Cancel, Job, JobState, Oban, ObanError, Record, Snooze, Worker, job, worker
from tests.conftest import StartOban
from tests.databases import async_engine
from tests.listening import hear
from tests.runtime.conftest import Rows

Sessions = async_sessionmaker[AsyncSession]
S = JobState


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(default=0)


@pytest.fixture
async def accounts(sessions: Sessions) -> Callable[[], Any]:
    """A table of the user with two accounts. Returns a function that reads the balances."""
    async with sessions.begin() as session:
        for change in (Base.metadata.drop_all, Base.metadata.create_all):
            await session.run_sync(lambda s, change=change: change(s.connection()))
        session.add_all([Account(id=1, balance=100), Account(id=2, balance=0)])

    async def balances() -> list[int]:
        async with sessions() as session:
            return list(await session.scalars(select(Account.balance).order_by(Account.id)))

    return balances


outcome: Any = None
then: Callable[[Any], Any] | None = None


@pytest.fixture(autouse=True)
def nothing_special() -> None:
    global outcome, then
    outcome = then = None


class Transfer(Worker, name="transaction.transfer", max_attempts=3):
    async def process(self, job: Job, session: AsyncSession) -> Any:
        source, target = [await session.get_one(Account, id) for id in (1, 2)]
        source.balance -= 10
        target.balance += 10
        if then is not None:
            await then(session)
        return outcome


class PlainTransfer(Worker, name="transaction.plain"):
    def process(self, job: Job, session: Session) -> Any:
        source, target = [session.get_one(Account, id) for id in (1, 2)]
        source.balance -= 10
        target.balance += 10
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@job(session=True, name="transaction.deposit")
async def deposit(session: AsyncSession, id: int, amount: int) -> None:
    (await session.get_one(Account, id)).balance += amount


@job(session=True, name="transaction.deposit_plainly")
def deposit_plainly(session: Session, id: int, amount: int) -> None:
    session.get_one(Account, id).balance += amount


class Next(Worker, name="transaction.next", queue="another"):
    async def process(self, job: Job) -> None: ...


KINDS = pytest.mark.parametrize("kind", [Transfer, PlainTransfer])


async def run(oban: Oban, kind: type[Worker] = Transfer) -> Any:
    with hear(oban, "ack_stop") as acks:
        await oban.enqueue(kind.new())
        (ack,) = await acks.wait()
    return ack


@pytest.fixture
async def oban(start: StartOban, accounts: Any) -> Oban:
    return await start(queues={"default": 5})


class TestCompletion:
    @KINDS
    async def test_changes_and_completion_are_committed_together(
        self, oban: Oban, kind: type[Worker], accounts: Any, rows: Rows, sessions: Sessions
    ) -> None:
        with hear(oban, "job_stop") as stops:
            ack = await run(oban, kind)
        assert (ack.count, ack.dropped) == (1, ())
        assert [stop.state for stop in stops.events] == [S.COMPLETED]
        assert await accounts() == [90, 10]
        assert await rows() == [(S.COMPLETED, 1)]

    @KINDS
    @pytest.mark.parametrize(
        ("returned", "row"),
        [
            (Cancel("enough"), (S.CANCELLED, 1)),
            (Snooze(60), (S.SCHEDULED, 0)),
            (Record({"moved": 10}), (S.COMPLETED, 1)),
        ],
    )
    async def test_every_outcome_commits_the_work(
        self, oban: Oban, kind: type[Worker], returned: Any, row: Any, accounts: Any, rows: Rows
    ) -> None:
        global outcome
        outcome = returned
        await run(oban, kind)
        assert await accounts() == [90, 10]
        assert await rows() == [row]

    async def test_a_recorded_value_is_kept(self, oban: Oban, sessions: Sessions) -> None:
        global outcome
        outcome = Record({"moved": 10})
        await run(oban)
        async with sessions() as session:
            (job,) = await session.scalars(select(Job))
        assert job.recorded == {"moved": 10}

    async def test_jobs_enqueued_inside_are_committed_with_the_completion(
        self, oban: Oban, rows: Rows
    ) -> None:
        async def enqueue(session: AsyncSession) -> None:
            await Next.enqueue(conn=session)

        global then
        then = enqueue
        await run(oban)
        assert await rows() == [(S.COMPLETED, 1), (S.AVAILABLE, 0)]

    async def test_a_snoozed_job_runs_again(self, oban: Oban, accounts: Any, rows: Rows) -> None:
        global outcome
        outcome = Snooze(0.05)
        await run(oban)
        with hear(oban, "ack_stop") as acks:
            outcome = None
            await acks.counted(1)
        assert await accounts() == [80, 20]
        assert await rows() == [(S.COMPLETED, 1)]


class TestFunctions:
    @pytest.mark.parametrize("function", [deposit, deposit_plainly])
    async def test_a_function_is_given_a_session_besides_its_arguments(
        self, oban: Oban, function: Any, accounts: Any, sessions: Sessions
    ) -> None:
        with hear(oban, "ack_stop") as acks:
            await oban.enqueue(function.new(2, amount=5))
            await acks.counted(1)
        assert await accounts() == [100, 5]
        async with sessions() as session:
            (stored,) = await session.scalars(select(Job))
        assert (stored.state, stored.args) == (S.COMPLETED, {"id": 2, "amount": 5})

    async def test_a_function_can_be_called_with_a_session_of_the_caller(
        self, sessions: Sessions, accounts: Any
    ) -> None:
        async with sessions.begin() as session:
            await deposit(session, 1, amount=1)
        assert await accounts() == [101, 0]

    def test_a_function_without_a_session_parameter_is_refused(self) -> None:
        with pytest.raises(TypeError, match="needs a first parameter for the session"):

            @job(session=True, name="transaction.nothing")
            def nothing(*, session: Session) -> None: ...

        with pytest.raises(TypeError, match="not async, so its session is Session"):

            @job(session=True, name="transaction.wrong_kind")
            def wrong(session: AsyncSession) -> None: ...


class TestRollback:
    @KINDS
    async def test_an_error_rolls_back_and_is_recorded(
        self, oban: Oban, kind: type[Worker], accounts: Any, rows: Rows, sessions: Sessions
    ) -> None:
        async def fail(session: AsyncSession) -> None:
            await session.flush()
            raise ValueError("boom")

        global outcome, then
        outcome, then = ValueError("boom"), fail
        with hear(oban, "job_exception") as failures:
            await run(oban, kind)
        assert [str(failure.error) for failure in failures.events] == ["boom"]
        assert await accounts() == [100, 0]
        assert await rows() == [(S.RETRYABLE, 1)]

    @pytest.mark.parametrize("lost", ["given back", "claimed anew", "deleted"])
    async def test_a_late_worker_changes_nothing(
        self, oban: Oban, lost: str, accounts: Any, rows: Rows, sessions: Sessions
    ) -> None:
        """The fence no longer holds, since the job has another attempt."""

        async def lose(worker_session: AsyncSession) -> None:
            async with sessions.begin() as session:
                if lost == "deleted":
                    await session.execute(delete(Job))
                elif lost == "given back":
                    await session.execute(update(Job).values(state=S.SCHEDULED, attempt=0))
                else:
                    await session.execute(update(Job).values(attempt=Job.attempt + 1))

        global then
        then = lose
        with hear(oban, "job_stop") as stops:
            ack = await run(oban)
        assert (ack.count, len(ack.dropped)) == (0, 1)
        assert stops.events == []
        assert await accounts() == [100, 0]

    async def test_a_commit_of_the_worker_is_refused(
        self, oban: Oban, accounts: Any, rows: Rows, sessions: Sessions
    ) -> None:
        async def commit(session: AsyncSession) -> None:
            await session.commit()

        global then
        then = commit
        with hear(oban, "job_exception") as failures:
            await run(oban)
        assert isinstance(failures.events[0].error, ObanError)
        assert "leave the commit out" in str(failures.events[0].error)
        assert await accounts() == [100, 0]

    async def test_a_worker_may_use_savepoints(self, oban: Oban, accounts: Any) -> None:
        async def savepoints(session: AsyncSession) -> None:
            async with session.begin_nested():
                await session.execute(update(Account).values(balance=Account.balance + 1))
            async with session.begin_nested() as savepoint:
                await session.execute(update(Account).values(balance=0))
                await savepoint.rollback()

        global then
        then = savepoints
        await run(oban)
        assert await accounts() == [91, 11]


class TestTheTransaction:
    async def test_an_unused_session_begins_no_transaction(self, start: StartOban) -> None:
        @worker(name="transaction.idle")
        class Idle:
            async def process(self, job: Job, session: AsyncSession) -> None:
                assert not session.in_transaction()

        oban = await start(queues={"default": 1})
        with hear(oban, "job_stop") as stops:
            ack = await run(oban, Idle)  # type: ignore[arg-type]
        assert ack.count == 1
        assert [stop.state for stop in stops.events] == [S.COMPLETED]

    async def test_a_conflict_with_another_transaction_is_retried_at_once(
        self, oban: Oban, accounts: Any, rows: Rows, sessions: Sessions
    ) -> None:
        """A serialization failure: another transaction changes a row that this one has read."""
        tries = 0

        async def collide(session: AsyncSession) -> None:
            nonlocal tries
            tries += 1
            if tries < 3:
                await session.rollback()
                await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
                account = await session.get_one(Account, 1)
                async with sessions.begin() as other:
                    await other.execute(update(Account).values(balance=Account.balance + 1))
                account.balance = 0

        global then
        then = collide
        await run(oban)
        assert tries == 3
        assert await accounts() == [92, 12]
        assert await rows() == [(S.COMPLETED, 1)]

    async def test_each_try_has_a_worker_object_of_its_own(self, start: StartOban) -> None:
        """The object of the last try may refer to rows that were rolled back."""
        objects: list[Any] = []

        @worker(name="transaction.collides", queue="default")
        class Collides:
            async def process(self, job: Job, session: AsyncSession) -> None:
                assert not vars(self)
                vars(self)["tried"] = True
                objects.append(self)
                if len(objects) < 3:
                    await session.execute(text("DO $$BEGIN RAISE SQLSTATE '40001'; END$$"))

        oban = await start(queues={"default": 1})
        with hear(oban, "job_stop") as stops:
            ack = await run(oban, Collides)  # type: ignore[arg-type]
        assert ack.count == 1
        assert [stop.state for stop in stops.events] == [S.COMPLETED]
        assert len({*map(id, objects)}) == 3

    async def test_repeated_conflicts_fail_the_attempt(
        self, oban: Oban, accounts: Any, rows: Rows
    ) -> None:
        tries = 0

        async def collide(session: AsyncSession) -> None:
            nonlocal tries
            tries += 1
            await session.execute(text("DO $$BEGIN RAISE SQLSTATE '40P01'; END$$"))

        global then
        then = collide
        await run(oban)
        assert tries == 5
        assert await accounts() == [100, 0]
        assert await rows() == [(S.RETRYABLE, 1)]

    async def test_the_sessions_are_those_of_the_given_sessionmaker(
        self, start: StartOban, engine: AsyncEngine, accounts: Any
    ) -> None:
        infos: list[Any] = []

        async def look(session: AsyncSession) -> None:
            infos.append(session.info)

        global then
        then = look
        oban = await start(async_sessionmaker(engine, info={"tenant": 7}), queues={"default": 1})
        await run(oban)
        assert infos == [{"tenant": 7}]


class TestStopping:
    async def test_an_attempt_cut_off_by_a_stop_is_rolled_back_and_given_back(
        self, start: StartOban, accounts: Any, rows: Rows
    ) -> None:
        begun = asyncio.Event()

        async def hang(session: AsyncSession) -> None:
            await session.flush()
            begun.set()
            await asyncio.Event().wait()

        global then
        then = hang
        oban = await start(queues={"default": 1}, shutdown_grace_period=0.05)
        await oban.enqueue(Transfer.new())
        await begun.wait()
        await oban.stop()
        assert await accounts() == [100, 0]
        assert await rows() == [(S.AVAILABLE, 0)]


class TestDeclaration:
    def test_a_session_of_the_wrong_kind_is_refused(self) -> None:
        with pytest.raises(TypeError, match="its session is AsyncSession, not Session"):

            class Wrong(Worker, name="transaction.wrong"):
                async def process(self, job: Job, session: Session) -> None: ...

        with pytest.raises(TypeError, match="its session is Session, not AsyncSession"):

            class AlsoWrong(Worker, name="transaction.also_wrong"):
                def process(self, job: Job, session: AsyncSession) -> None: ...


@pytest.mark.parametrize("kind", ["engine", "options"])
async def test_an_engine_in_autocommit_gives_a_worker_a_transaction(
    postgres_dsn: str,
    prefix: str,
    sessions: Sessions,
    rows: Rows,
    accounts: Callable[[], Any],
    kind: str,
) -> None:
    """Otherwise its changes would be kept although its job fails."""
    global then

    async def fail(session: AsyncSession) -> None:
        await session.flush()
        raise ValueError("after the flush")

    then = fail
    options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}
    engine = async_engine(postgres_dsn, prefix, **(options if kind == "engine" else {}))
    given = engine if kind == "engine" else engine.execution_options(**options)
    async with sessions.begin() as session:
        session.add(Transfer.new())
    oban = Oban(given, queues={"default": 5}, leadership=False)
    with hear(oban, "ack_stop") as acks:
        async with oban:
            await acks.counted(1)
    await engine.dispose()
    assert await accounts() == [100, 0]
    assert await rows() == [(S.RETRYABLE, 1)]
