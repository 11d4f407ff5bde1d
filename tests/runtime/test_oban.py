"""An instance from start to stop."""

import asyncio
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban, Record, Worker, job
from tests.conftest import StartOban
from tests.databases import User
from tests.listening import hear

Sessions = async_sessionmaker[AsyncSession]


class Greet(Worker, queue="greetings"):
    async def process(self, job: Job) -> Record:
        return Record(f"hello {job.args['name']}")


@job(queue="greetings")
def shout(name: str) -> Record:
    return Record(name.upper())


async def test_jobs_of_a_committed_session_run(start: StartOban, sessions: Sessions) -> None:
    oban = await start(queues={"greetings": 5})
    with hear(oban, "ack_stop") as acks:
        async with sessions.begin() as session:
            session.add(User(name="ann"))
            greeting = await Greet.enqueue({"name": "ann"}, conn=session)
            session.add(shout.new("bob"))
            await shout.enqueue("carl", conn=session, schedule_in=timedelta(milliseconds=50))
        await acks.counted(3)
    async with sessions() as session:
        jobs = (await session.scalars(select(Job).order_by(Job.id))).all()
    assert [job.state for job in jobs] == [JobState.COMPLETED] * 3
    assert [job.recorded for job in jobs] == ["hello ann", "BOB", "CARL"]
    assert jobs[0].id == greeting.id


async def test_stopping_twice_and_before_the_start_does_nothing(engine) -> None:
    oban = Oban(engine, queues={"default": 1})
    await oban.stop()
    async with oban:
        pass
    await asyncio.gather(oban.stop(), oban.stop())
