"""Checked by type checkers, not run: options, and arguments beside options.

mypy and pyright report each line that ignores an error without having one.
"""

from datetime import UTC, datetime, timedelta
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from oban_sqla import Job, Unique, Worker, job, worker


@job(queue="sums", timeout=5, missing="raise", backoff=lambda job: 2 * job.attempt)
async def add(number: int, to: int = 0) -> int:
    return number + to


@job(session=True)
async def forget(session: AsyncSession, user_id: int) -> None: ...


@job()
def total(*numbers: int, **named: str) -> None: ...


async def the_arguments_of_functions_beside_options(session: AsyncSession) -> None:
    assert_type(add.options(schedule_in=60).new(1), Job)
    assert_type(await add.options(conn=session, priority=1).enqueue(1, to=2), Job)
    assert_type(await add.options(unique=Unique(period=60), tags=["x"]).enqueue(1), Job)
    assert_type(await forget.options(conn=session).enqueue(7), Job)
    assert_type(total.options(meta={"a": 1}).new(1, 2, word="x"), Job)
    assert_type(add.options(deadline=60).new(1), Job)
    add.options(deadline="soon")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    later = add.options(scheduled_at=datetime.now(UTC))
    assert_type(later.new(number=1), Job)

    add.options(schedule_in=60).new("x")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    add.options(schedule_in=60).new()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    add.options(schedule_in=60).new(1, 2, 3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    add.options(schedule_in=60).new(1, too=2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    later.new(1, to="x")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    later.new(1, priority=3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await add.options(conn=session).enqueue("x")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await add.options(conn=session).enqueue()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await forget.options(conn=session).enqueue(session, 7)  # type: ignore[call-arg, arg-type] # pyright: ignore[reportCallIssue]
    await forget.options(priority=1).enqueue("7")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    total.options(priority=1).new("x")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    total.options(priority=1).new(word=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@job()
async def tell(job_id: int) -> None: ...


class Tell(Worker):
    async def process(self, job: Job) -> None: ...


@worker()
class TellToo:
    async def process(self, job: Job) -> None: ...


@job(on_discard=tell)
async def one_to_discard() -> None: ...


class AnotherToDiscard(Worker, on_discard=Tell):
    async def process(self, job: Job) -> None: ...


job(on_discard=Tell)
worker(on_discard=tell)
job(on_discard=TellToo)  # type: ignore[call-overload] # mypy ignores class decorators
job(on_discard=forget)
job(on_discard=tell.new(1))  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
job(on_discard="shop.tell")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
worker(on_discard=int)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def the_arguments_of_functions_without_options() -> None:
    add.new("x")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    add.new()  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    await add.enqueue("x")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    await add.enqueue(1, con=None)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    await add.enqueue()  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]


async def options_of_functions(session: AsyncSession) -> None:
    add.options(prioriti=1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    add.options(priority="high")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    add.options(schedule_in="60")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    add.options(conn="postgresql://")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    add.options(unique="yes")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    add.options(session)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


class Welcome(Worker, queue="mailers"):
    async def process(self, job: Job) -> None: ...


async def options_of_classes(session: AsyncSession) -> None:
    assert_type(Welcome.new({"to": "ann"}, schedule_in=timedelta(hours=1)), Job)
    assert_type(await Welcome.enqueue({"to": "ann"}, conn=session, priority=1), Job)

    Welcome.new({}, prioriti=1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Welcome.new({}, priority="high")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Welcome.new(to="ann")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Welcome.new("ann")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await Welcome.enqueue({}, conn=session, prioriti=1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await Welcome.enqueue({}, conn=session, scheduled_at="now")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await Welcome.enqueue({}, session)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


class Reacting(Worker, on=Welcome, on_update=("sent",), when=lambda row: row.sent):
    async def process(self, job: Job) -> None: ...


class Misspelt(Worker, quue="mailers"): ...  # type: ignore[call-arg] # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]


class Unfit(Worker, queue=3): ...  # type: ignore[arg-type] # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]


class Locked(Worker, lock="share"): ...  # type: ignore[arg-type] # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]


class Function(Worker, backoff=None): ...  # type: ignore[call-arg] # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]


worker(quue="mailers")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
worker(priority="high")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
worker(retry_on="ValueError")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
worker(aliases=[int])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
job(quue="sums")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
job(missing="ignore")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
job(lock="update")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
job(backoff=60)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]


class Base(DeclarativeBase): ...


class Invoice(MappedAsDataclass, Base, Worker, kw_only=True, queue="billing"):
    __tablename__ = "invoices"
    id: Mapped[int] = mapped_column(primary_key=True)

    async def process(self, job: Job, session: AsyncSession) -> None: ...


assert_type(Invoice(id=5).new({"copy": True}, deadline=60), Job)
