"""Workers that are models: the row of a job processes it."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import delete, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, joinedload, selectinload
from sqlalchemy.schema import CreateSchema

from oban_sqla import Job, JobState, Oban, RowMissingError
from tests.conftest import StartOban
from tests.listening import hear
from tests.worker_models import (
    Account,
    Base,
    Car,
    Elsewhere,
    Export,
    Invoice,
    Letter,
    Parcel,
    Reminder,
    Vehicle,
)

Sessions = async_sessionmaker[AsyncSession]


def create(session: Session) -> None:
    session.execute(CreateSchema("rows_elsewhere", if_not_exists=True))
    for base in (Base, Elsewhere):
        base.metadata.create_all(session.connection())


def drop(session: Session) -> None:
    for base in (Base, Elsewhere):
        base.metadata.drop_all(session.connection())


@pytest.fixture(autouse=True)
async def tables(sessions: Sessions) -> AsyncIterator[None]:
    async with sessions.begin() as session:
        await session.run_sync(create)
    yield
    async with sessions.begin() as session:
        await session.run_sync(drop)


async def enqueue(sessions: Sessions, row: Any, **args: Any) -> Job:
    async with sessions.begin() as session:
        session.add(row)
        job: Job = await row.enqueue(args, conn=session)
        return job


async def run(start: StartOban, jobs: int = 1, *, then: str = "job_stop") -> list[Any]:
    """Run some jobs to their end, and return the events of their ends."""
    with hear(Oban, then) as heard:
        queues = dict.fromkeys(("default", "billing", "mailers"), 5)
        oban = await start(queues=queues)
        found = await heard.wait(jobs)
    await oban.stop()
    return found


async def recorded(sessions: Sessions, job: Job) -> Any:
    async with sessions() as session:
        return (await session.get_one(Job, job.id)).recorded


class TestProcessing:
    async def test_the_row_is_loaded_in_the_session(
        self, sessions: Sessions, start: StartOban
    ) -> None:
        job = await enqueue(sessions, invoice := Invoice(total=1), add=41)
        await run(start)
        assert await recorded(sessions, job) == 42
        async with sessions() as session:
            assert (await session.get_one(Invoice, invoice.id)).total == 42

    async def test_the_row_may_be_an_argument_too(
        self, sessions: Sessions, start: StartOban
    ) -> None:
        async with sessions.begin() as session:
            session.add(invoice := Invoice(total=1))
            # The argument has this name in the stored arguments, although the method also has
            # `self`.
            job = await invoice.enqueue({"a": invoice}, conn=session)
        await run(start)
        assert await recorded(sessions, job) == 2

    async def test_a_subclass_is_loaded_whole(self, sessions: Sessions, start: StartOban) -> None:
        await enqueue(sessions, reminder := Reminder())
        await run(start)
        async with sessions() as session:
            assert (await session.get_one(Reminder, reminder.id)).level == 2

    async def test_without_a_session_the_row_is_detached(
        self, sessions: Sessions, start: StartOban
    ) -> None:
        job = await enqueue(sessions, export := Export())
        await run(start)
        assert await recorded(sessions, job) == [str(export.owner), 2026]

    async def test_a_row_of_another_schema_is_loaded(
        self, sessions: Sessions, start: StartOban
    ) -> None:
        job = await enqueue(sessions, letter := Letter())
        await run(start)
        assert await recorded(sessions, job) == letter.id

    async def test_a_detached_row_can_be_enqueued(
        self, sessions: Sessions, start: StartOban
    ) -> None:
        await enqueue(sessions, invoice := Invoice())
        assert inspect(invoice).detached
        async with sessions.begin() as session:
            await invoice.enqueue(conn=session, schedule_in=0)
        await run(start, 2)

    async def test_a_missing_row_cancels_its_job(
        self, sessions: Sessions, start: StartOban
    ) -> None:
        job = await enqueue(sessions, Invoice())
        async with sessions.begin() as session:
            await session.execute(delete(Invoice))
        (stop,) = await run(start)
        assert stop.state == JobState.CANCELLED
        async with sessions() as session:
            found = await session.get_one(Job, job.id)
            assert found.errors[0]["error"] == f"row not found: tests.worker_models.Invoice id={1}"

    async def test_a_missing_row_fails_its_job_on_request(
        self, sessions: Sessions, start: StartOban, expect_errors: None
    ) -> None:
        await enqueue(sessions, Account())
        async with sessions.begin() as session:
            await session.execute(delete(Account))
        (failed,) = await run(start, then="job_exception")
        assert isinstance(failed.error, RowMissingError)

    async def test_a_job_that_names_no_row_fails(
        self, sessions: Sessions, start: StartOban, expect_errors: None
    ) -> None:
        async with sessions.begin() as session:
            session.add(Job("tests.worker_models.Invoice", {}, queue="billing"))
        (failed,) = await run(start, then="job_exception")
        assert re.search(r"args\['self'\] of a job of .*Invoice must refer", str(failed.error))


class TestLocks:
    async def test_jobs_of_a_locked_row_run_one_at_a_time(
        self, sessions: Sessions, start: StartOban
    ) -> None:
        async with sessions.begin() as session:
            session.add(account := Account())
            for _ in range(20):
                await account.enqueue(conn=session)  # type: ignore[attr-defined]
        await run(start, 20)
        async with sessions() as session:
            assert (await session.get_one(Account, account.id)).balance == 20

    async def test_a_locked_row_is_skipped_for_a_while(
        self, sessions: Sessions, start: StartOban
    ) -> None:
        job = await enqueue(sessions, parcel := Parcel(weight=1))
        async with sessions.begin() as session:
            await session.get_one(Parcel, parcel.id, with_for_update=True)
            (stop,) = await run(start)
        assert stop.state == JobState.SCHEDULED
        async with sessions() as session:
            found = await session.get_one(Job, job.id)
            assert found.attempt == 0
            assert (found.scheduled_at - job.scheduled_at).total_seconds() >= 1
            assert (await session.get_one(Parcel, parcel.id)).weight == 1


class TestRelationship:
    @pytest.fixture
    async def invoices(self, sessions: Sessions) -> list[Invoice]:
        async with sessions.begin() as session:
            session.add_all(rows := [Invoice(), Invoice(), Reminder()])
            await session.flush()
            for row in rows[1:]:
                await row.enqueue(conn=session)
                await row.enqueue({"add": 2}, conn=session)
        return rows

    @pytest.mark.parametrize("load", [joinedload, selectinload])
    async def test_is_loaded_eagerly(
        self, sessions: Sessions, invoices: list[Invoice], load: Any
    ) -> None:
        async with sessions() as session:
            query = select(Invoice).options(load(Invoice.jobs)).order_by(Invoice.id)
            found = (await session.scalars(query)).unique().all()
            assert [len(one.jobs) for one in found] == [0, 2, 2]
            assert [job.args.get("add") for job in found[1].jobs] == [None, 2]

    async def test_is_loaded_lazily(self, sessions: Sessions, invoices: list[Invoice]) -> None:
        async with sessions() as session:
            row = await session.get_one(Reminder, invoices[2].id)
            jobs = await session.run_sync(lambda _: row.jobs)
            assert [job.worker for job in jobs] == ["tests.worker_models.Reminder"] * 2

    async def test_is_usable_in_a_query(self, sessions: Sessions, invoices: list[Invoice]) -> None:
        async with sessions() as session:
            query = select(Invoice.id).where(Invoice.jobs.any(Job.args_contain({"add": 2})))
            found = (await session.scalars(query.order_by(Invoice.id))).all()
            assert found == [invoices[1].id, invoices[2].id]
            query = select(Job.state).join(Invoice.jobs).where(Invoice.id == invoices[1].id)
            assert (await session.scalars(query)).all() == ["available", "available"]

    async def test_finds_composite_keys(self, sessions: Sessions) -> None:
        job = await enqueue(sessions, export := Export())
        async with sessions() as session:
            query = select(Export).options(selectinload(Export.jobs))
            (found,) = await session.scalars(query)
            assert found.owner == export.owner
            assert [one.id for one in found.jobs] == [job.id]

    async def test_keeps_a_concrete_subclass_apart(self, sessions: Sessions) -> None:
        job = await enqueue(sessions, Vehicle(id=1))
        of_car = await enqueue(sessions, Car(id=1))
        async with sessions() as session:
            vehicle = await session.get_one(Vehicle, 1, options=[selectinload(Vehicle.jobs)])
            assert [one.id for one in vehicle.jobs] == [job.id]
            car = await session.get_one(Car, 1, options=[selectinload(Car.jobs)])
            assert [one.id for one in car.jobs] == [of_car.id]
