"""The inserts of one, a few and many jobs store the same values."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState
from oban_sqla.enqueue.batch import encoded
from oban_sqla.statements.insert_few import insert_few
from oban_sqla.statements.insert_one import insert_one

DEFAULTS = (JobState.AVAILABLE, "default", 20, 0, {}, {}, [])


# One job and up to ten jobs are inserted by statements of their own.
COUNTS = pytest.mark.parametrize("count", [1, 2, 11])


@COUNTS
async def test_a_job_has_the_default_values(
    count: int, sessions: async_sessionmaker[AsyncSession]
) -> None:
    async with sessions.begin() as session:
        session.add_all([Job("insert.plain") for _ in range(count)])
    filled = (Job.state, Job.queue, Job.max_attempts, Job.priority, Job.args, Job.meta, Job.tags)
    async with sessions() as session:
        rows = await session.execute(select(*filled))
        assert [tuple(row) for row in rows] == [DEFAULTS] * count


@COUNTS
async def test_a_job_has_the_given_values(
    count: int, sessions: async_sessionmaker[AsyncSession]
) -> None:
    given: dict[str, Any] = {
        "queue": "mail",
        "max_attempts": 3,
        "priority": 7,
        "args": {
            "$model": "shop.Order",
            "$key": 1,
            "text": "'ü\\\" %(x)s $1",
            "deep": [{"$$key": None}],
        },
        "meta": {"$key": [1.5, True]},
    }
    async with sessions.begin() as session:
        session.add_all([Job("insert.given", **given) for _ in range(count)])
    async with sessions() as session:
        jobs = (await session.scalars(select(Job))).all()
        assert [{name: getattr(job, name) for name in given} for job in jobs] == [given] * count


@pytest.mark.parametrize(
    "options",
    [
        {"tags": ["a"]},
        {"queue": "köln"},
        {"scheduled_at": datetime(2040, 1, 1, tzinfo=UTC)},
        {"scheduled_at": datetime(2020, 1, 1, tzinfo=UTC), "state": JobState.AVAILABLE},
        {"state": JobState.SUSPENDED},
    ],
)
async def test_one_job_with_more_values_is_stored(
    options: dict[str, Any], sessions: async_sessionmaker[AsyncSession]
) -> None:
    job = Job("insert.more", **options)
    (batch,) = encoded([job])
    assert batch.make is not insert_one
    async with sessions.begin() as session:
        session.add(job)
    async with sessions() as session:
        stored = (await session.scalars(select(Job))).one()
        assert {name: getattr(stored, name) for name in options} == options


def test_only_one_job_has_a_parameter_for_each_column() -> None:
    (one,) = encoded([Job("insert.one")])
    (two,) = encoded([Job("insert.two"), Job("insert.two")])
    assert (one.make, two.make) == (insert_one, insert_few)


@pytest.mark.parametrize("value", [float("nan"), "\0", "\ud800", object()])
@pytest.mark.parametrize("field", ["args", "meta"])
def test_a_value_that_was_changed_in_place_is_refused(field: str, value: object) -> None:
    job = Job("insert.changed")
    getattr(job, field)["key"] = value
    with pytest.raises((ValueError, TypeError), match=field):
        list(encoded([job]))


def test_args_that_contain_themselves_are_refused() -> None:
    job = Job("insert.circular")
    job.args["again"] = job.args
    with pytest.raises(ValueError, match="contains itself"):
        list(encoded([job]))
