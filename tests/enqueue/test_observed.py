"""The events of enqueueing: one for each call, and one for each flush, through every `conn`."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, func, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from oban_sqla import Job, Unique, Worker, worker
from oban_sqla.enqueue.enqueue import enqueue
from oban_sqla.events import Enqueueing, EnqueueStart, EnqueueStop
from tests.databases import User
from tests.enqueue.conftest import Observer
from tests.enqueue.conn_kinds import CONN_KINDS, MAIN_KINDS, ConnKind

Sessions = async_sessionmaker[AsyncSession]


class Mail(Worker, name="tests.observed.Mail"):
    async def process(self, job: Job) -> None: ...


class Told:
    """The events that the listeners received, in order."""

    def __init__(self) -> None:
        self.starts: list[EnqueueStart] = []
        self.stops: list[EnqueueStop] = []

    def start(self, enqueueing: Enqueueing, start: EnqueueStart) -> None:
        self.starts.append(start)
        for job in start.jobs:
            job.meta = {**job.meta, "told": True}

    def stop(self, enqueueing: Enqueueing, stop: EnqueueStop) -> None:
        self.stops.append(stop)

    @property
    def jobs(self) -> list[list[Any]]:
        """The arguments of the jobs of each event that began and ended."""
        assert [stop.start for stop in self.stops] == self.starts
        return [[job.args for job in start.jobs] for start in self.starts]


@contextmanager
def listening(told: Told) -> Iterator[None]:
    event.listen(Enqueueing, "enqueue_start", told.start)
    event.listen(Enqueueing, "enqueue_stop", told.stop)
    try:
        yield
    finally:
        event.remove(Enqueueing, "enqueue_start", told.start)
        event.remove(Enqueueing, "enqueue_stop", told.stop)


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    with listening(told):
        yield told


@pytest.fixture(params=MAIN_KINDS)
async def kind(
    request: pytest.FixtureRequest, postgres_dsn: str, prefix: str
) -> AsyncIterator[ConnKind]:
    async with CONN_KINDS[request.param](postgres_dsn, prefix) as kind:
        yield kind


async def metas(observer: Observer) -> list[Any]:
    return [job["meta"] for job in await observer.jobs()]


async def test_all_jobs_of_a_call_are_one_event(
    kind: ConnKind, told: Told, prefix: str, observer: Observer
) -> None:
    await enqueue([Mail.new({"n": 1}), Mail.new({"n": 2})], kind.conn, prefix=prefix)
    await kind.flush()
    assert told.jobs == [[{"n": 1}, {"n": 2}]]
    await kind.commit()
    (stop,) = told.stops
    assert stop.error is None
    assert stop.duration > 0
    assert await metas(observer) == [{"told": True}] * 2


async def test_jobs_have_their_ids_in_the_stop_event(sessions: Sessions, told: Told) -> None:
    ids: list[int] = []

    def note(enqueueing: Enqueueing, stop: EnqueueStop) -> None:
        ids.append(stop.start.jobs[0].id)

    event.listen(Enqueueing, "enqueue_stop", note)
    try:
        async with sessions.begin() as session:
            job = await Mail.enqueue(conn=session)
            await session.flush()
            assert ids == [job.id]
    finally:
        event.remove(Enqueueing, "enqueue_stop", note)


async def test_a_flush_of_plain_and_unique_and_waiting_jobs_is_one_event(
    sessions: Sessions, told: Told, observer: Observer
) -> None:
    async with sessions.begin() as session:
        session.add(user := User(name="ann"))
        session.add(Mail.new({"n": 1}))
        session.add(Mail.new({"n": 2}, unique=Unique()))
        session.add(Mail.new({"user": user}))
    (jobs,) = told.jobs
    assert len(jobs) == 3
    assert [stop.error for stop in told.stops] == [None]
    assert [meta["told"] for meta in await metas(observer)] == [True] * 3


async def test_jobs_of_changed_rows_are_in_the_event_of_the_flush(
    sessions: Sessions, told: Told, observer: Observer, no_workers: None
) -> None:
    @worker(name="tests.observed.React", on=User, on_insert=True)
    class React:
        async def process(self, job: Job) -> None: ...

    async with sessions.begin() as session:
        session.add_all([User(name="ann"), User(name="bob")])
    (jobs,) = told.jobs
    assert len(jobs) == 2
    assert await metas(observer) == [{"told": True}] * 2


async def test_a_job_of_a_before_flush_listener_is_in_the_event_of_the_flush(
    sessions: Sessions, told: Told, observer: Observer
) -> None:
    def add(session: Session, *others: Any) -> None:
        session.add(Mail.new({"n": 2}))

    async with sessions.begin() as session:
        event.listen(session.sync_session, "before_flush", add, once=True)
        session.add(Mail.new({"n": 1}))
    assert told.jobs == [[{"n": 1}], [{"n": 2}]]
    assert await metas(observer) == [{"told": True}] * 2


async def test_a_flush_that_fails_ends_its_event(sessions: Sessions, told: Told) -> None:
    async with sessions() as session:
        session.add(user := User(name=None))
        session.add(Mail.new({"user": user}))
        with pytest.raises(DBAPIError):
            await session.flush()
    (stop,) = told.stops
    assert isinstance(stop.error, DBAPIError)


async def test_a_rollback_ends_the_event_of_a_flush_that_did_not_run(
    sessions: Sessions, told: Told
) -> None:
    def refuse(session: Session, *others: Any) -> None:
        raise LookupError("refused")

    async with sessions() as session:
        event.listen(session.sync_session, "before_flush", refuse, once=True)
        session.add(user := User(name="ann"))
        session.add(Mail.new({"user": user}))
        with pytest.raises(LookupError):
            await session.flush()
        await session.rollback()
    (stop,) = told.stops
    assert stop.error is not None


async def test_bad_input_ends_the_event(sessions: Sessions, told: Told) -> None:
    job = Mail.new({"n": 1})
    job.args["n"] = float("nan")
    async with sessions() as session:
        connection = await session.connection()
        with pytest.raises(ValueError, match="args"):
            await enqueue([job], connection)
    (stop,) = told.stops
    assert isinstance(stop.error, ValueError)


async def test_jobs_of_an_insert_statement_are_one_event(
    sessions: Sessions, told: Told, observer: Observer
) -> None:
    rows: list[dict[str, Any]] = [
        {"worker": "a.B", "args": {"n": 1}},
        {"worker": "a.B", "args": {"n": 2}, "meta": {"x": 1}},
    ]
    async with sessions.begin() as session:
        await session.execute(insert(Job), rows)
        await session.execute(insert(Job), {"worker": "a.B", "args": {"n": 3}})
        await session.execute(insert(Job).values(worker=func.lower("A")))
    assert told.jobs == [[{"n": 1}, {"n": 2}], [{"n": 3}]]
    assert sorted(await metas(observer), key=len) == [
        {},
        {"told": True},
        {"told": True},
        {"x": 1, "told": True},
    ]


async def test_a_listener_that_raises_disturbs_no_flush_and_is_logged_once(
    sessions: Sessions, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(enqueueing: Enqueueing, start: EnqueueStart) -> None:
        raise LookupError("no")

    caplog.set_level(logging.INFO, logger="oban_sqla")
    event.listen(Enqueueing, "enqueue_start", broken)
    try:
        for _ in range(3):
            async with sessions.begin() as session:
                session.add(Mail.new())
    finally:
        event.remove(Enqueueing, "enqueue_start", broken)
    assert len(await observer.jobs()) == 3
    assert len(caplog.records) == 1
    caplog.clear()


async def test_trace_keys_are_no_part_of_the_unique_key(sessions: Sessions) -> None:
    unique = Unique(fields=("worker", "meta"))
    async with sessions.begin() as session:
        first = await Mail.enqueue(conn=session, unique=unique, meta={"traceparent": "00-a-b-01"})
        await session.flush()
        second = await Mail.enqueue(conn=session, unique=unique, meta={"traceparent": "00-c-d-01"})
        third = await Mail.enqueue(conn=session, unique=unique, meta={"other": 1})
        await session.flush()
    assert (second.conflict, second.id) == (True, first.id)
    assert not third.conflict
