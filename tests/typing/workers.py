"""Checked by type checkers, not run: workers. mypy and pyright agree, also about errors."""

from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, selectinload

from oban_sqla import Cancel, Job, Record, Snooze, Unique, Worker, current_job, job, running_job


class Welcome(Worker, queue="mailers", max_attempts=5, priority=0, tags=["email"], name="welcome"):
    def __init__(self) -> None:
        self.sent = 0

    async def process(self, job: Job) -> Cancel | Snooze | Record | None:
        return Snooze(timedelta(minutes=1)) if job.attempt > 1 else Record({"sent": self.sent})

    def backoff(self, job: Job) -> int:
        return 2 * job.attempt


class Transfer(Worker, name="transfer"):
    async def process(self, job: Job, session: AsyncSession) -> None:
        assert_type(await session.get(Welcome, 1), Welcome | None)


class PlainTransfer(Worker, name="plain_transfer"):
    def process(self, job: Job, session: Session) -> Snooze | None:
        return None


assert_type(Transfer.new({"amount": 5}), Job)
assert_type(Welcome().sent, int)
assert_type(Welcome.new({"to": "ann"}, priority=3, schedule_in=timedelta(hours=1)), Job)
assert_type(Welcome.new({"to": "ann"}, scheduled_at=datetime.now(UTC)), Job)
assert_type(current_job(), Job | None)
assert_type(running_job(), Job)
Welcome.new({"to": "ann"}, prioriti=3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
Welcome.new(["ann"])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
Welcome.new({}, queue=3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def enqueue_a_class() -> None:
    assert_type(await Welcome.enqueue({"to": "ann"}, queue="later"), Job)


@job(queue="reports", max_attempts=3, backoff=lambda job: job.attempt)
def report(month: str, detailed: bool = False) -> int:
    return len(month)


@job()
async def fetch(url: str) -> bytes:
    return url.encode()


@report.before
def announce(job: Job) -> None: ...


@fetch.after
async def keep(job: Job, result: bytes) -> int:
    return len(result)


kept: Coroutine[Any, Any, int] = keep(Welcome.new(), b"")
report.before(3)  # type: ignore[type-var] # pyright: ignore[reportArgumentType]


assert_type(report("2026-11"), int)
assert_type(report.new("2026-11", detailed=True), Job)
assert_type(report.new("2026-11", schedule_in=60), Job)
report(11)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@job(session=True)
async def forget(session: AsyncSession, user_id: int) -> None:
    await session.get(Welcome, user_id)


@job(session=True)
def forget_plainly(session: Session, user_id: int) -> str:
    return "gone"


@job()
def anything(payload: Any) -> Any:
    return payload


assert_type(forget.new(7), Job)
assert_type(forget_plainly(Session(), 7), str)
assert_type(anything.new({"a": 1}), Job)
forget.new("7")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
forget_plainly(7)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


async def enqueue_a_function() -> None:
    assert_type(await fetch("https://"), bytes)
    assert_type(await report.enqueue("2026-11", detailed=True), Job)
    assert_type(await report.enqueue("2026-11", True, conn=None, priority=1), Job)
    assert_type(await forget.enqueue(7), Job)
    assert_type(await forget.enqueue(7, queue="later"), Job)
    assert_type(await fetch.enqueue("https://", max_attempts=1), Job)
    assert_type(await fetch.enqueue("https://", unique=Unique(period=60)), Job)
    assert_type(await Welcome.enqueue({}, unique=True), Job)
    assert_type(Welcome.new({}, unique=False).conflict, bool)
    await report.enqueue(11)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    await report.enqueue("2026-11", details=True)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]


class Base(DeclarativeBase): ...


class Invoice(Worker, Base, queue="billing", lock="update"):
    __tablename__ = "invoices"
    id: Mapped[int] = mapped_column(primary_key=True)

    async def process(self, job: Job, session: AsyncSession) -> None: ...


async def rows(session: AsyncSession) -> None:
    invoice = Invoice()
    assert_type(invoice.new(priority=3), Job)
    assert_type(await invoice.enqueue({"copy": True}, conn=session, schedule_in=5), Job)
    assert_type(invoice.jobs, list[Job])
    select(Invoice).options(selectinload(Invoice.jobs)).where(Invoice.jobs.any(Job.is_finished))


@job()
def remind(invoice: Invoice, at: datetime) -> None: ...


remind.new(Invoice(), datetime.now())
