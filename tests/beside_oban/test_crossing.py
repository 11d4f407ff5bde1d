"""A job that one library enqueues is run by the other one, at once."""

from datetime import UTC, datetime, timedelta

import oban as oban_py
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job
from tests.beside_oban.conftest import NEVER, StartTheirs, Table
from tests.beside_oban.workers import OURS, THEIRS, Ours, Script, Theirs
from tests.conftest import StartOban
from tests.databases import User
from tests.listening import hear

pytestmark = pytest.mark.oban

Sessions = async_sessionmaker[AsyncSession]


async def test_one_name_stands_for_both_workers() -> None:
    assert Ours.new().worker == Theirs.new().worker


class TestObanPyEnqueuesWeRun:
    async def test_a_job_runs_at_once(self, client: oban_py.Oban, start: StartOban) -> None:
        """Only the NOTIFY of oban-py can have told our node."""
        ours = await start(queues={"shared": 5}, fallback_interval=NEVER)
        with hear(ours, "job_stop") as stops:
            enqueued = await client.enqueue(
                Theirs.new({"naïve": [1, None]}, tags=["A", "b"], priority=3, meta={"k": 1})
            )
            (stop,) = await stops.wait()
        assert Script.ran == [(OURS, enqueued.id)]
        job: Job = stop.job
        assert (job.args, job.tags, job.priority) == ({"naïve": [1, None]}, ["a", "b"], 3)
        assert job.meta == {"k": 1}
        assert job.max_attempts == 5

    async def test_many_jobs_of_one_transaction_run(
        self, client: oban_py.Oban, start: StartOban, table: Table
    ) -> None:
        await start(queues={"shared": 5}, fallback_interval=NEVER)
        await client.enqueue_many(Theirs.new({"n": n}) for n in range(50))
        await table.until({"completed": 50})

    async def test_a_scheduled_job_is_staged_by_our_poll(
        self, client: oban_py.Oban, start: StartOban
    ) -> None:
        """oban-py announces no scheduled jobs, since its own stager looks once a second."""
        ours = await start(queues={"shared": 5}, fallback_interval=0.05)
        with hear(ours, "job_stop") as stops:
            enqueued = await client.enqueue(Theirs.new(scheduled_in=timedelta(seconds=0.2)))
            assert enqueued.state == "scheduled"
            (stop,) = await stops.wait()
        assert stop.job.attempted_at >= stop.job.scheduled_at > stop.job.inserted_at

    async def test_our_node_polls_for_a_scheduled_job_of_a_full_oban_py_node(
        self,
        start_theirs: StartTheirs,
        client: oban_py.Oban,
        start: StartOban,
        table: Table,
    ) -> None:
        """The stager of oban-py announces nothing, so our nodes poll while its nodes are alive."""
        await start_theirs(node=THEIRS, queues={"shared": 1})
        await client.enqueue(Theirs.new({"do": "wait"}))
        assert (await Script.next_begun())[0] == THEIRS
        await start(queues={"shared": 5}, fallback_interval=NEVER, poll_interval=0.05)
        job = await client.enqueue(Theirs.new(scheduled_in=timedelta(seconds=0.2)))
        await table.until({"executing": 1, "completed": 1})
        assert (await table.job(job.id))["attempted_by"][0] != THEIRS

    async def test_one_session_enqueues_through_both_libraries(
        self, client: oban_py.Oban, start: StartOban, sessions: Sessions, table: Table
    ) -> None:
        """During a migration, code may call both libraries in one transaction. It commits or rolls
        back both.
        """
        ours = await start(queues={"shared": 5}, fallback_interval=NEVER)
        async with sessions() as session:
            await client.enqueue(Theirs.new(), conn=session)
            await Ours.enqueue(conn=session)
            session.add(User(name="rolled back"))
            await session.flush()
            await session.rollback()
        async with sessions.begin() as session:
            await client.enqueue(Theirs.new(), conn=session)
            await Ours.enqueue(conn=session)
            session.add(User(name="committed"))
        with hear(ours, "ack_stop") as acks:
            await acks.counted(2)
        assert await table.states() == {"completed": 2}


class TestWeEnqueueObanPyRuns:
    async def test_a_job_of_a_session_runs(
        self, start_theirs: StartTheirs, sessions: Sessions, table: Table
    ) -> None:
        # Otherwise the stager of oban-py would find it.
        await start_theirs(stager={"interval": NEVER})
        async with sessions.begin() as session:
            job = await Ours.enqueue({"naïve": [1, None]}, conn=session, tags=["a"], priority=3)
        await table.until({"completed": 1})
        assert Script.ran == [(THEIRS, job.id)]

    async def test_jobs_without_conn_run(
        self, start_theirs: StartTheirs, start: StartOban, table: Table
    ) -> None:
        await start_theirs(stager={"interval": NEVER})
        ours = await start()  # this instance runs nothing
        await ours.enqueue(Ours.new())
        await ours.enqueue_many(Ours.new({"n": n}) for n in range(50))
        await table.until({"completed": 51})
        assert {side for side, _ in Script.ran} == {THEIRS}

    async def test_a_scheduled_job_runs(
        self, start_theirs: StartTheirs, sessions: Sessions, table: Table
    ) -> None:
        await start_theirs()
        at = datetime.now(UTC) + timedelta(seconds=0.2)
        async with sessions.begin() as session:
            session.add(job := Ours.new(scheduled_at=at))
        await table.until({"completed": 1})
        row = await table.job(job.id)
        assert row["attempted_at"].replace(tzinfo=UTC) >= at

    async def test_oban_py_reads_our_jobs(self, client: oban_py.Oban, sessions: Sessions) -> None:
        async with sessions.begin() as session:
            session.add(job := Ours.new({"a": {"b": [1.5]}}, tags=["t"], meta={"k": None}))
        theirs = await client.get_job(job.id)
        assert theirs is not None
        for field in ("args", "meta", "tags", "queue", "worker", "priority", "max_attempts"):
            assert getattr(theirs, field) == getattr(job, field)
        for field in ("inserted_at", "scheduled_at", "attempted_at", "completed_at"):
            assert getattr(theirs, field) == getattr(job, field)


async def test_each_job_of_a_shared_queue_runs_once(
    start_theirs: StartTheirs,
    start: StartOban,
    client: oban_py.Oban,
    sessions: Sessions,
    table: Table,
) -> None:
    count = 2_000
    async with sessions.begin() as session:
        session.add_all(Ours.new({"do": "yield"}) for _ in range(count // 2))
    await client.enqueue_many(Theirs.new({"do": "yield"}) for _ in range(count // 2))
    await start_theirs()
    await start(queues={"shared": 10})
    await table.until({"completed": count})
    assert len(Script.ran) == count
    assert len({id for _, id in Script.ran}) == count
    assert {side for side, _ in Script.ran} == {OURS, THEIRS}
    assert await table.query("SELECT 1 FROM {oban_jobs} WHERE attempt <> 1") == []
