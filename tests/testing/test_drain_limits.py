"""`drain_queue` obeys limits, or ignores them."""

from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Limit, Oban, Rate, Worker
from oban_sqla.testing import drain_queue

Sessions = async_sessionmaker[AsyncSession]


class Rated(Worker, queue="limits", rate=Rate(2, per=3600, by="key", name="drain")):
    ran: list[str] = []  # noqa: RUF012 - emptied before each test

    async def process(self, job: Job) -> None:
        self.ran.append(job.args["key"])


class Limited(Worker, queue="limits", limit=Limit(1)):
    async def process(self, job: Job) -> None: ...


class Plain(Worker, queue="plain"):
    async def process(self, job: Job) -> None: ...


@pytest.fixture(autouse=True)
def ran() -> list[str]:
    Rated.ran.clear()
    return Rated.ran


def add(session: AsyncSession) -> None:
    session.add_all([*(Rated.new({"key": key}) for key in "aaab"), Limited.new(), Limited.new()])


async def test_limits_are_ignored_by_default(sessions: Sessions, ran: list[str]) -> None:
    async with sessions() as session:
        add(session)
        assert (await drain_queue(session))["completed"] == 6
        assert ran == [*"aaab"]


async def test_with_limits_other_jobs_wait(sessions: Sessions, ran: list[str]) -> None:
    async with sessions() as session:
        add(session)
        counts = await drain_queue(session, "limits", with_limits=True)
        assert counts["completed"] == 5
        assert sorted(ran) == [*"aab"]
        session.add(Rated.new({"key": "c"}))
        assert (await drain_queue(session, with_limits=True))["completed"] == 1


async def test_jobs_that_run_elsewhere_are_counted(sessions: Sessions) -> None:
    async with sessions() as session:
        running = Limited.new()
        running.state = JobState.EXECUTING
        session.add_all([running, Limited.new()])
        assert (await drain_queue(session, with_limits=True))["completed"] == 0


async def test_an_instance_is_drained_with_limits(sessions: Sessions, engine: object) -> None:
    oban = Oban(sessions)
    async with sessions.begin() as session:
        add(session)
    assert (await drain_queue(oban, with_limits=True))["completed"] == 5


BY_KEY = {"fields": ["args"], "keys": ["key"]}


@pytest.mark.parametrize(
    ("limits", "ended"),
    [
        ({"rate_limit": Rate(2, per=3600)}, 2),
        ({"rate_limit": {"allowed": 2, "period": 3600, "partition": BY_KEY}}, 3),
        ({"global_limit": 1}, 0),
        ({"global_limit": {"allowed": 1, "partition": BY_KEY}}, 1),
    ],
)
async def test_the_limits_of_the_queues_of_an_instance_apply(
    sessions: Sessions, limits: dict[str, Any], ended: int
) -> None:
    oban = Oban(sessions, queues={"plain": {"limit": 5, **limits}})
    async with sessions.begin() as session:
        session.add_all(Plain.new({"key": key}) for key in "aaab")
        if "global_limit" in limits:
            session.add(Plain.new({"key": "a"}, meta={"running": True}))
            await session.flush()
            running = Job.meta.has_key("running")
            await session.execute(update(Job).where(running).values(state=JobState.EXECUTING))
    assert (await drain_queue(oban, with_limits=True))["completed"] == ended
    assert (await drain_queue(oban))["completed"] == 4 - ended


async def test_contradictory_options_are_refused(sessions: Sessions) -> None:
    async with sessions() as session:
        with pytest.raises(ValueError, match="with_recursion=True"):
            drain_queue(session, with_limits=True, with_recursion=False)
