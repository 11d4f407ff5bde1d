"""After workers ran, the session of a test shows what they wrote, and awaits nothing for it."""

import pytest
from sqlalchemy import delete, inspect, update
from sqlalchemy.ext.asyncio import AsyncSession

from oban_sqla import Job
from oban_sqla.testing.refresh import refresh
from tests.databases import User


@pytest.fixture
async def ann(session: AsyncSession) -> User:
    session.add(user := User(name="Ann"))
    await session.flush()
    return user


async def past(session: AsyncSession, statement: object) -> None:
    """Change rows without the session's knowledge."""
    connection = await session.connection()
    await connection.execute(statement)  # type: ignore[call-overload]


async def test_reads_what_is_loaded_again(session: AsyncSession, ann: User) -> None:
    await past(session, update(User).values(name="Bob"))
    await session.run_sync(refresh)
    assert ann.name == "Bob"


async def test_leaves_what_is_not_loaded(session: AsyncSession, ann: User) -> None:
    session.expire(ann, ["name"])
    await past(session, update(User).values(name="Bob"))
    await session.run_sync(refresh)
    assert "name" in inspect(ann).unloaded


async def test_leaves_what_the_test_has_changed(session: AsyncSession, ann: User) -> None:
    ann.name = "mine"
    await past(session, update(User).values(name="Bob"))
    await session.run_sync(refresh)
    assert ann.name == "mine"


async def test_lets_go_of_what_is_deleted(session: AsyncSession, ann: User) -> None:
    session.add(job := Job("some.Worker"))
    await session.flush()
    id = job.id
    await past(session, delete(User))
    await past(session, delete(Job))
    await session.run_sync(refresh)
    assert not [*session]
    assert (ann.name, job.id) == ("Ann", id)


async def test_sends_one_statement_for_all_jobs(session: AsyncSession) -> None:
    session.add_all(jobs := [Job("some.Worker", queue=f"q{n}") for n in range(30)])
    await session.flush()
    await past(session, update(Job).values(priority=3))
    await session.run_sync(refresh)
    assert {job.priority for job in jobs} == {3}
