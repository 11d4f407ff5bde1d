"""Workers that follow their arguments."""

from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban_sqla import Cancel, Job, Record, Snooze, Worker, current_job, job
from tests.databases import User


class Outcome(Worker, queue="outcomes"):
    """A worker that ends as `args["end"]` says."""

    async def process(self, job: Job) -> Any:
        match job.args.get("end"):
            case "cancel":
                return Cancel("not wanted")
            case "snooze":
                return Snooze(60)
            case "raise":
                raise ValueError("boom")
        return Record({"attempt": job.attempt})

    def backoff(self, job: Job) -> float:
        return 600.0


class Plain(Worker, queue="plain"):
    def process(self, job: Job) -> Any:
        assert current_job() is job
        return Record("plain")


class Rename(Worker, queue="users"):
    """Renames a user in its session, and raises afterwards if its arguments say so."""

    async def process(self, job: Job, session: AsyncSession) -> Any:
        user = await session.get_one(User, job.args["id"])
        user.name = job.args["name"]
        await session.flush()
        if job.args.get("raise"):
            raise ValueError("boom")
        return Record(user.name)


class PlainRename(Worker, queue="users"):
    def process(self, job: Job, session: Session) -> Any:
        session.get_one(User, job.args["id"]).name = job.args["name"]


class Remove(Worker, queue="users"):
    async def process(self, job: Job, session: AsyncSession) -> Any:
        await session.delete(await session.get_one(User, job.args["id"]))


class RollBack(Worker, queue="users"):
    """Rolls back its changes, and completes."""

    async def process(self, job: Job, session: AsyncSession) -> Any:
        session.add(User(name="given up"))
        await session.flush()
        await session.rollback()
        names = await session.scalars(select(User.name))
        return Record(names.all())


class Commit(Worker, queue="users"):
    async def process(self, job: Job, session: AsyncSession) -> Any:
        session.add(User(name="committed"))
        await session.commit()


class Chain(Worker, queue="chain"):
    """Enqueues the next job of its kind, `args["left"]` times."""

    async def process(self, job: Job, session: AsyncSession) -> Any:
        if left := job.args["left"]:
            await Chain.enqueue({"left": left - 1}, conn=session)


@job(queue="reports", max_attempts=3)
def report(month: str, detailed: bool = False) -> str:
    return f"{month} {detailed}"


HOUR = timedelta(hours=1)
