"""Browsing: the most informative line of an error, and selections in batches."""

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, JobState, Oban
from oban_sqla.manage.delete import DELETABLE
from oban_sqla.monitor.browse import Selection, summary
from oban_sqla.monitor.job_queries import Filters
from oban_sqla.runtime.database import Database
from tests.conftest import Add
from tests.factories import JobFactory

CHAINED = """Traceback (most recent call last):
  File "a.py", line 1, in f
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in f
    raise ValueError
    ^^^^^^^^
app.errors.Wrong: many
lines
"""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (None, None),
        ("", ""),
        ("boom\nand more", "boom"),
        (CHAINED, "app.errors.Wrong: many"),
        ("Traceback (most recent call last):\n  cut", "  cut"),
    ],
)
def test_the_summary_is_the_line_of_the_error_that_tells_most(
    error: str | None, line: str | None
) -> None:
    assert summary(error) == line


async def test_a_selection_is_processed_in_batches(
    engine: AsyncEngine, prefix: str, add: Add
) -> None:
    ids = await add(*(JobFactory() for _ in range(5)), JobFactory(executing=True))
    database, oban = Database(engine, prefix), Oban(engine, prefix=prefix)
    selection = Selection(Filters(), DELETABLE, limit=4)
    tally = await selection.tally(database)
    assert (tally.counts, tally.total, tally.last) == ({"available": 4}, 4, ids[3])
    await add(JobFactory())
    counts = []
    async for count, batch in selection.batches(database, tally, size=3):
        counts.append(count)
        assert await oban.delete_jobs(batch) == count
    assert counts == [3, 1]
    assert (await Selection(Filters(), DELETABLE).tally(database)).total == 2


async def test_jobs_that_have_changed_since_are_skipped(
    engine: AsyncEngine, prefix: str, add: Add
) -> None:
    first, second = await add(JobFactory(completed=True), JobFactory(completed=True))
    database, oban = Database(engine, prefix), Oban(engine, prefix=prefix)
    selection = Selection(Filters(states=(JobState.COMPLETED,)), DELETABLE)
    tally = await selection.tally(database)
    async for count, batch in selection.batches(database, tally):
        assert count == 2
        async with database.transaction() as connection:
            await connection.execute(update(Job).where(Job.id == first).values(state="available"))
        assert await oban.delete_jobs(batch) == 1
    assert await oban.get_job(second) is None
    assert await oban.get_job(first) is not None


async def test_a_selection_without_changeable_states_is_empty(
    engine: AsyncEngine, prefix: str
) -> None:
    selection = Selection(Filters(states=(JobState.EXECUTING,)), DELETABLE)
    assert (await selection.tally(Database(engine, prefix))).total == 0
