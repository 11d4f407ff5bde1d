"""With a session as `conn`, changes belong to its transaction, and its instances are refreshed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from oban_sqla import Job, JobState, Oban
from tests.conftest import Add
from tests.databases import User
from tests.enqueue.conftest import Listener
from tests.factories import JobFactory
from tests.manage.conftest import Find, States, UnitOfWork

Sessions = async_sessionmaker[AsyncSession]

S = JobState


async def cancel_retry_delete_and_update(oban: Oban, jobs: Any, conn: Any) -> None:
    """Each method is called for one of four jobs, of which the second is cancelled."""
    assert await oban.cancel_jobs(jobs[0], conn=conn) == 1
    assert await oban.retry_jobs([jobs[1]], conn=conn) == 1
    assert await oban.delete_jobs(jobs[2], conn=conn) == 1
    (updated,) = await oban.update_jobs(jobs[3], {"priority": 7}, conn=conn)
    assert (updated.id, updated.priority) == (jobs[3], 7)


@pytest.fixture
async def ids(add: Add) -> list[int]:
    return await add(JobFactory(), JobFactory(state=S.CANCELLED), JobFactory(), JobFactory())


class TestTransaction:
    async def test_changes_are_invisible_before_the_commit(
        self, oban: Oban, unit: UnitOfWork, ids: list[int], states: States, find: Find
    ) -> None:
        await cancel_retry_delete_and_update(oban, ids, unit.conn)
        assert await states() == [S.AVAILABLE, S.CANCELLED, S.AVAILABLE, S.AVAILABLE]
        await unit.do(lambda session: session.commit())
        assert await states() == [S.CANCELLED, S.AVAILABLE, S.AVAILABLE]
        assert [job.priority for job in await find()] == [0, 0, 7]

    async def test_a_rollback_undoes_the_change(
        self, oban: Oban, unit: UnitOfWork, ids: list[int], states: States, find: Find
    ) -> None:
        await cancel_retry_delete_and_update(oban, ids, unit.conn)
        await unit.do(lambda session: session.rollback())
        assert await states() == [S.AVAILABLE, S.CANCELLED, S.AVAILABLE, S.AVAILABLE]
        assert [job.priority for job in await find()] == [0, 0, 0, 0]

    async def test_a_rolled_back_savepoint_undoes_the_change(
        self, oban: Oban, unit: UnitOfWork, ids: list[int], states: States
    ) -> None:
        await oban.cancel_jobs(ids[0], conn=unit.conn)
        savepoint = await unit.do(lambda session: session.begin_nested())
        await cancel_retry_delete_and_update(oban, [ids[3], ids[1], ids[2], ids[3]], unit.conn)
        await unit.do(lambda session: savepoint.rollback())
        await unit.do(lambda session: session.commit())
        assert await states() == [S.CANCELLED, S.CANCELLED, S.AVAILABLE, S.AVAILABLE]

    async def test_a_select_also_finds_uncommitted_jobs(
        self, oban: Oban, unit: UnitOfWork, states: States
    ) -> None:
        def add(session: Session) -> None:
            session.add(User(name="ann"))
            session.add(JobFactory(args={"to": "ann"}))

        await unit.do(add)
        of_users = select(Job).join(User, User.name == Job.args["to"].astext)
        assert await oban.cancel_jobs(of_users, conn=unit.conn) == 1
        await unit.do(lambda session: session.commit())
        assert await states() == [S.CANCELLED]

    async def test_bad_input_does_not_break_the_transaction(
        self, oban: Oban, unit: UnitOfWork, ids: list[int], states: States
    ) -> None:
        wrong: list[tuple[Any, Any]] = [
            (ids, {"args": {"x": float("nan")}}),
            (ids, {"max_attempts": 0}),
            (ids, {"id": 1}),
            (ids, lambda job: {"queue": ""}),
            (ids, lambda job: 1 / 0),
            ([ids[0], 10**30], {}),
            (select(Job.id), {}),
            (JobFactory(), {}),
        ]
        await oban.cancel_jobs(ids[0], conn=unit.conn)
        for which, changes in wrong:
            with pytest.raises((ValueError, TypeError, ZeroDivisionError)):
                await oban.update_jobs(which, changes, conn=unit.conn)
        await unit.do(lambda session: session.commit())
        assert await states() == [S.CANCELLED, S.CANCELLED, S.AVAILABLE, S.AVAILABLE]


class TestInstances:
    async def test_instances_of_the_session_show_the_new_values(
        self, oban: Oban, unit: UnitOfWork, ids: list[int]
    ) -> None:
        jobs = await unit.jobs()
        await cancel_retry_delete_and_update(oban, jobs_ids(jobs), unit.conn)
        # Read outside of a greenlet, where an async session can't load anything.
        assert [job.state for job in jobs if job is not jobs[2]] == [
            S.CANCELLED,
            S.AVAILABLE,
            S.AVAILABLE,
        ]
        assert jobs[0].cancelled_at is not None
        assert jobs[0].meta.keys() == {"cancel_attempted_at"}
        assert jobs[3].priority == 7
        assert not any(inspect(job).modified or inspect(job).expired for job in jobs)

    async def test_an_updated_job_is_returned_as_the_instance_of_the_session(
        self, oban: Oban, unit: UnitOfWork, ids: list[int]
    ) -> None:
        jobs = await unit.jobs()
        updated = await oban.update_jobs(
            select(Job).order_by(Job.id), lambda job: {"tags": [*job.tags, "new"]}, conn=unit.conn
        )
        assert [id(job) for job in updated] == [id(job) for job in jobs]
        assert [job.tags for job in jobs] == [["new"]] * 4
        assert await oban.get_job(ids[1], conn=unit.conn) is jobs[1]

    async def test_expired_instances_are_loaded(
        self, oban: Oban, unit: UnitOfWork, ids: list[int]
    ) -> None:
        jobs = await unit.jobs()
        await unit.do(lambda session: session.expire_all())
        await oban.cancel_jobs(ids[0], conn=unit.conn)
        assert jobs[0].state is S.CANCELLED

    async def test_a_deleted_job_leaves_the_session_until_a_rollback(
        self, oban: Oban, unit: UnitOfWork, ids: list[int]
    ) -> None:
        jobs = await unit.jobs()
        await oban.delete_jobs(jobs[2], conn=unit.conn)
        assert inspect(jobs[2]).deleted
        assert len(await unit.jobs()) == 3
        await unit.do(lambda session: session.rollback())
        assert inspect(jobs[2]).persistent
        await oban.delete_jobs(ids[2], conn=unit.conn)
        await unit.do(lambda session: session.commit())
        assert not inspect(jobs[2]).persistent

    async def test_an_added_job_is_flushed_first(
        self, oban: Oban, unit: UnitOfWork, states: States
    ) -> None:
        job, other = JobFactory(), JobFactory(args={"n": "other"})
        await unit.do(lambda session: session.add_all([job, other]))
        assert await oban.cancel_jobs(job, conn=unit.conn) == 1
        found = select(Job).where(Job.args["n"].astext == "other")
        assert await oban.cancel_jobs(found, conn=unit.conn) == 1
        assert [job.state, other.state] == [S.CANCELLED, S.CANCELLED]
        await unit.do(lambda session: session.commit())
        assert await states() == [S.CANCELLED, S.CANCELLED]

    async def test_an_added_job_has_no_id_without_autoflush(
        self, oban: Oban, unit: UnitOfWork
    ) -> None:
        job = JobFactory()

        def add(session: Session) -> None:
            session.autoflush = False
            session.add(job)

        await unit.do(add)
        with pytest.raises(ValueError, match="has no id: it was not enqueued, or not flushed"):
            await oban.cancel_jobs(job, conn=unit.conn)

    async def test_earlier_changes_are_kept(
        self, oban: Oban, unit: UnitOfWork, ids: list[int], find: Find
    ) -> None:
        jobs = await unit.jobs()
        jobs[0].priority, jobs[3].tags = 5, ["mine"]
        await oban.cancel_jobs(ids[0], conn=unit.conn)
        await oban.update_jobs(ids[3], {"priority": 7}, conn=unit.conn)
        await unit.do(lambda session: session.commit())
        rows = await find()
        assert (rows[0].state, rows[0].priority) == (S.CANCELLED, 5)
        assert (rows[3].tags, rows[3].priority) == (["mine"], 7)

    async def test_no_further_instance_is_loaded(
        self, oban: Oban, unit: UnitOfWork, ids: list[int]
    ) -> None:
        await cancel_retry_delete_and_update(oban, ids, unit.conn)
        held = await unit.do(lambda session: len(session.identity_map))
        assert held == 0  # the updated job was returned, and its row is gone


def jobs_ids(jobs: list[Job]) -> list[int]:
    return [job.id for job in jobs]


class TestAlone:
    """Without `conn`, the call has a transaction of its own."""

    async def test_a_call_without_conn_commits(
        self, oban: Oban, ids: list[int], states: States, find: Find
    ) -> None:
        await cancel_retry_delete_and_update(oban, ids, None)
        assert await states() == [S.CANCELLED, S.AVAILABLE, S.AVAILABLE]
        assert [job.priority for job in await find()] == [0, 0, 7]

    async def test_returned_jobs_are_loaded_and_in_no_session(
        self, oban: Oban, ids: list[int]
    ) -> None:
        (updated,) = await oban.update_jobs(ids[3], {"args": {"new": 1}})
        found = await oban.get_job(ids[3])
        assert found is not None
        for job in (updated, found):
            assert inspect(job).detached
            assert (job.args, job.state, job.completed_at) == ({"new": 1}, S.AVAILABLE, None)
        assert await oban.get_job(123456789) is None

    async def test_a_passed_instance_does_not_change(self, oban: Oban, add: Add) -> None:
        await add(job := JobFactory())
        await oban.cancel_jobs(job)
        assert job.state is S.AVAILABLE

    async def test_a_call_changes_all_jobs_or_none(
        self, oban: Oban, ids: list[int], find: Find
    ) -> None:
        def change(job: Job) -> dict[str, Any]:
            return {"priority": 9} if job.id < ids[3] else {"priority": 10}

        with pytest.raises(ValueError, match="priority must be from 0 to 9, got 10"):
            await oban.update_jobs(ids, change)
        assert {job.priority for job in await find()} == {0}

    async def test_a_call_uses_the_prefix_of_the_instance(
        self, postgres_dsn: str, prefix: str, ids: list[int], states: States
    ) -> None:
        oban = Oban(postgres_dsn, prefix=prefix)
        await cancel_retry_delete_and_update(oban, ids, None)
        await oban.stop()
        assert await states() == [S.CANCELLED, S.AVAILABLE, S.AVAILABLE]


@pytest.mark.parametrize("verb", ["cancel_jobs", "retry_jobs", "delete_jobs"])
async def test_many_jobs_need_few_statements(
    oban: Oban, add: Add, engine: AsyncEngine, verb: str
) -> None:
    state = S.CANCELLED if verb == "retry_jobs" else S.AVAILABLE
    ids = await add(*(JobFactory(state=state) for _ in range(50)))
    sent: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *event: sent.append(event[2]))
    assert await getattr(oban, verb)(ids) == 50
    assert len(sent) == (2 if verb == "retry_jobs" else 1)


@pytest.mark.parametrize(
    "conn",
    [
        "postgresql://localhost/shop",
        ...,
        AsyncSession,
        Session,
        async_sessionmaker(),
        sessionmaker(),
        psycopg.AsyncConnection,
    ],
    ids=repr,
)
async def test_an_invalid_conn_is_refused(oban: Oban, conn: Any) -> None:
    for call in (
        oban.cancel_jobs(1, conn=conn),
        oban.retry_jobs(1, conn=conn),
        oban.delete_jobs(1, conn=conn),
        oban.update_jobs(1, {}, conn=conn),
        oban.get_job(1, conn=conn),
    ):
        with pytest.raises(TypeError, match=r"conn must be an AsyncSession, async_scoped_session"):
            await call


async def test_a_connection_is_refused(oban: Oban, engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        with pytest.raises(TypeError, match=r"got sqlalchemy\..*\.AsyncConnection\. Without conn"):
            await oban.cancel_jobs(1, conn=connection)  # type: ignore[arg-type]


async def test_a_session_may_know_several_databases(
    oban: Oban, engine: AsyncEngine, add: Add, states: States
) -> None:
    (id,) = await add(JobFactory())
    async with AsyncSession(binds={Job: engine}) as session:
        assert await oban.cancel_jobs(select(Job), conn=session) == 1
        assert await oban.retry_jobs(id, conn=session) == 1
        await oban.update_jobs(select(Job), {"priority": 3}, conn=session)
        assert (await oban.get_job(id, conn=session)) is not None
        assert await oban.delete_jobs(select(Job), conn=session) == 1
        await session.commit()
    assert await states() == []


async def test_a_two_phase_transaction_sends_no_notify(
    oban: Oban, session_factory: sessionmaker[Session], add: Add, listener: Listener
) -> None:
    running, finished = await add(JobFactory(executing=True), JobFactory(completed=True))
    with Session(session_factory.kw["bind"], twophase=True) as session:
        await oban.cancel_jobs(running, conn=session)
        await oban.retry_jobs(finished, conn=session)
        session.prepare()
        session.commit()
    job = await oban.get_job(running)
    assert job is not None
    assert "cancel_attempted_at" in job.meta
    assert await listener.heard() == []


async def test_times_come_from_the_clock_of_the_database(
    oban: Oban, sessions: Sessions, add: Add
) -> None:
    """The time is not that of the beginning of a long transaction."""
    (id,) = await add(JobFactory())
    async with sessions.begin() as session:
        begun = (await session.scalars(text("SELECT now()"))).one()
        await session.scalars(text("SELECT pg_sleep(0.05)"))
        await oban.cancel_jobs(id, conn=session)
    job = await oban.get_job(id)
    assert job is not None
    assert job.cancelled_at is not None
    assert job.cancelled_at > begun + timedelta(seconds=0.04)
    assert job.cancelled_at - datetime.now(UTC) < timedelta(seconds=60)
