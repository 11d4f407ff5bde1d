"""Jobs are inserted chunk by chunk in one transaction, while the next chunk is made."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any
from weakref import WeakSet

import pytest
from sqlalchemy import event, inspect
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, Oban, Unique, Worker
from oban_sqla.enqueue import batch, chunks, gc_pause
from tests.conftest import Tune
from tests.databases import User
from tests.enqueue.conftest import Listener, Observer
from tests.enqueue.conn_kinds import MAIN_KINDS, ConnKind


class Send(Worker, name="tests.chunks.Send", queue="mailers"):
    async def process(self, job: Job) -> None: ...


class Once(Worker, name="tests.chunks.Once", unique=True):
    async def process(self, job: Job) -> None: ...


@pytest.fixture
def oban(engine: AsyncEngine) -> Oban:
    return Oban(engine)


@pytest.fixture(autouse=True)
def small_chunks(tune: Tune) -> None:
    """Chunks of three jobs."""
    tune(batch, MOST_ROWS=3)
    tune(chunks, MOST_ROWS=3)
    tune(gc_pause, SLICE=3)


def made(count: int, worker: type[Worker] = Send) -> Iterator[Job]:
    return (worker.new({"n": n}) for n in range(count))


async def made_async(count: int) -> AsyncIterator[Job]:
    for job in made(count):
        await asyncio.sleep(0)
        yield job


def fails_after(count: int) -> Iterator[Job]:
    yield from made(count)
    raise LookupError("the source broke")


def numbers(count: int) -> list[dict[str, int]]:
    return [{"n": n} for n in range(count)]


class TestOwnTransaction:
    @pytest.mark.parametrize("count", [1, 3, 4, 9, 11])
    async def test_all_jobs_are_inserted_in_their_order(
        self, oban: Oban, observer: Observer, count: int
    ) -> None:
        jobs = await oban.enqueue_many(made(count))
        assert await observer.args() == numbers(count)
        assert [job.id for job in jobs] == [row["id"] for row in await observer.jobs()]
        assert all(inspect(job).detached for job in jobs)

    @pytest.mark.parametrize("source", [made, made_async], ids=["iterable", "async iterable"])
    async def test_a_stream_returns_the_number_of_its_jobs(
        self, oban: Oban, observer: Observer, listener: Listener, source: Any
    ) -> None:
        assert await oban.enqueue_stream(source(10)) == 10
        assert await observer.args() == numbers(10)
        assert await listener.heard() == [("oban_insert", {"queue": "mailers"})]

    async def test_an_empty_stream_needs_no_connection(self) -> None:
        assert await Oban("postgresql://nobody@nowhere.invalid/none").enqueue_stream([]) == 0

    async def test_the_server_inserts_a_chunk_while_the_client_makes_the_next(
        self, oban: Oban, engine: AsyncEngine
    ) -> None:
        happened: list[str] = []

        def source() -> Iterator[Job]:
            for n in range(9):
                if n % 3 == 0:
                    happened.append(f"make {n // 3}")
                yield Send.new({"n": n})

        def begin(*_: Any) -> None:
            happened.append("begin")

        def end(*_: Any) -> None:
            happened.append("end")

        event.listen(engine.sync_engine, "before_cursor_execute", begin)
        event.listen(engine.sync_engine, "after_cursor_execute", end)
        await oban.enqueue_many(source())
        first = happened.index("begin")
        assert happened[:first] == ["make 0"]
        assert happened[first + 1] == "make 1"
        assert happened.count("end") == 3

    async def test_other_tasks_run_during_a_stream(self, oban: Oban) -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        await oban.enqueue_many(made(300))
        task.cancel()
        assert turns > 100

    async def test_a_stream_keeps_no_jobs_in_memory(self, oban: Oban) -> None:
        alive: WeakSet[Job] = WeakSet()
        most = 0

        def source() -> Iterator[Job]:
            nonlocal most
            for job in made(60):
                alive.add(job)
                most = max(most, len(alive))
                yield job

        await oban.enqueue_stream(source())
        assert most <= 12, "three chunks, and one that is made"
        gc.collect()
        assert len(alive) <= 1

    @pytest.mark.parametrize("enabled", [True, False])
    async def test_a_stream_restores_the_garbage_collector(self, oban: Oban, enabled: bool) -> None:
        if not enabled:
            gc.disable()
        try:
            with pytest.raises(LookupError):
                await oban.enqueue_many(fails_after(4))
            assert gc.isenabled() is enabled
            await oban.enqueue_stream(made(4))
            assert gc.isenabled() is enabled
        finally:
            gc.enable()

    @pytest.mark.parametrize("name", ["enqueue_many", "enqueue_stream"])
    async def test_a_source_that_fails_leaves_no_job(
        self, oban: Oban, engine: AsyncEngine, observer: Observer, name: str
    ) -> None:
        with pytest.raises(LookupError, match="the source broke"):
            await getattr(oban, name)(fails_after(8))
        assert await observer.args() == []
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]

    @pytest.mark.parametrize("name", ["enqueue_many", "enqueue_stream"])
    async def test_a_job_that_the_database_refuses_leaves_no_job(
        self, oban: Oban, observer: Observer, name: str
    ) -> None:
        jobs = [*made(12)]
        vars(jobs[4])["max_attempts"] = 0
        with pytest.raises(Exception, match="positive_max_attempts"):
            await getattr(oban, name)(jobs)
        assert await observer.args() == []

    async def test_jobs_that_were_rolled_back_can_be_enqueued_again(
        self, oban: Oban, observer: Observer
    ) -> None:
        jobs = [*made(8), *made(1, Once), Send.new()]
        jobs[9].args["bad"] = float("nan")
        with pytest.raises(ValueError, match="bad"):
            await oban.enqueue_many(jobs)
        assert all(inspect(job).transient and job.id is None for job in jobs)
        await oban.enqueue_many(jobs[:9])
        assert len(await observer.jobs()) == 9

    async def test_jobs_of_a_session_are_refused(
        self, oban: Oban, sessions: async_sessionmaker[AsyncSession]
    ) -> None:
        async with sessions() as session:
            job = Send.new()
            session.add(job)
            with pytest.raises(ValueError, match="is in a session already"):
                await oban.enqueue_many(*made(3), job)
            assert job in session

    async def test_a_job_given_again_in_a_later_chunk_is_refused(
        self, oban: Oban, observer: Observer
    ) -> None:
        jobs = [*made(7)]
        with pytest.raises(ValueError, match="given twice"):
            await oban.enqueue_many(jobs, jobs[0])
        assert await observer.args() == []

    async def test_a_call_that_is_cancelled_leaves_no_job(
        self, oban: Oban, engine: AsyncEngine, observer: Observer
    ) -> None:
        reached = asyncio.Event()

        async def source() -> AsyncIterator[Job]:
            for job in made(7):
                yield job
            reached.set()
            await asyncio.Event().wait()

        call = asyncio.create_task(oban.enqueue_stream(source()))
        await reached.wait()
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert await observer.args() == []
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]

    async def test_duplicates_become_the_existing_jobs(
        self, oban: Oban, observer: Observer
    ) -> None:
        first = await oban.enqueue(Once.new({"n": 1}))
        jobs = await oban.enqueue_many(made(4, Once), made(4))
        assert [job.conflict for job in jobs] == [False, True, *[False] * 6]
        assert jobs[1].id == first.id
        assert len(await observer.jobs()) == 8

    async def test_duplicates_are_not_counted(self, oban: Oban, observer: Observer) -> None:
        await oban.enqueue(Once.new({"n": 1}))
        assert await oban.enqueue_stream([*made(4, Once), *made(4, Once), *made(4)]) == 3 + 4
        assert len(await observer.jobs()) == 8

    async def test_opposite_orders_of_unique_jobs_do_not_deadlock(
        self, oban: Oban, observer: Observer
    ) -> None:
        there = [Once.new({"n": n}, unique=Unique()) for n in range(50)]
        back = [Once.new({"n": n}, unique=Unique()) for n in reversed(range(50))]
        await asyncio.gather(oban.enqueue_many(there), oban.enqueue_many(back))
        assert len(await observer.jobs()) == 50


class TestThroughConn:
    @pytest.mark.parametrize("kind", MAIN_KINDS, indirect=True)
    async def test_a_stream_is_a_part_of_the_transaction(
        self, kind: ConnKind, oban: Oban, observer: Observer, listener: Listener
    ) -> None:
        assert await oban.enqueue_stream(made(7), conn=kind.conn) == 7
        assert await observer.args() == []
        await kind.rollback()
        assert await oban.enqueue_stream(made_async(4), conn=kind.conn) == 4
        assert await oban.enqueue_stream([*made(2, Once), *made(1, Once)], conn=kind.conn) == 2
        assert await listener.heard() == []
        await kind.commit()
        assert len(await observer.jobs()) == 6
        assert sorted(await listener.heard(), key=str) == [
            ("oban_insert", {"queue": "default"}),
            ("oban_insert", {"queue": "mailers"}),
        ]

    async def test_a_session_holds_none_of_the_jobs(
        self, oban: Oban, sessions: async_sessionmaker[AsyncSession], observer: Observer
    ) -> None:
        async with sessions.begin() as session:
            jobs = [*made(4)]
            await oban.enqueue_stream(jobs, conn=session)
            assert [*session.sync_session] == []
            assert all(inspect(job).detached and job.id for job in jobs)
        assert await observer.args() == numbers(4)

    async def test_a_session_flushes_the_rows_that_jobs_refer_to(
        self, oban: Oban, sessions: async_sessionmaker[AsyncSession], observer: Observer
    ) -> None:
        async with sessions.begin() as session:

            def source() -> Iterator[Job]:
                for n in range(5):
                    user = User(name=f"user {n}")
                    session.add(user)
                    yield Send.new({"user": user})

            await oban.enqueue_stream(source(), conn=session)
        keys = [args["user"]["$key"]["id"] for args in await observer.args()]
        assert len(set(keys)) == 5

    async def test_an_invalid_conn_is_refused(self, oban: Oban) -> None:
        with pytest.raises(TypeError, match="conn must be"):
            await oban.enqueue_stream(made(1), conn=object())  # type: ignore[arg-type]

    async def test_an_object_that_is_not_a_job_is_refused(
        self, oban: Oban, sessions: async_sessionmaker[AsyncSession]
    ) -> None:
        async with sessions() as session:
            with pytest.raises(TypeError, match="can only enqueue a Job"):
                await oban.enqueue_stream(["x"], conn=session)  # type: ignore[list-item]
