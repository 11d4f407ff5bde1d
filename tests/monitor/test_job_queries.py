"""Browse: the filters, and the order of the jobs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import literal, update
from sqlalchemy.dialects.postgresql import JSONB

from oban_sqla import Job, JobState
from oban_sqla.monitor import job_queries as browse_module
from oban_sqla.monitor.job_queries import Filters, among, newest, page, tally, whole
from tests.conftest import Add, Tune
from tests.factories import JobFactory
from tests.statements.conftest import Run

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


async def add_some(add: Add, run: Run) -> list[int]:
    """Add jobs that were enqueued 1, 2 and 3 hours ago."""
    ids = await add(
        JobFactory(queue="a", worker="app.A"),
        JobFactory(queue="b", worker="app.A", retryable=True),
        JobFactory(queue="b", worker="app.B", completed=True),
    )
    for hours, id in enumerate(ids, 1):
        at = NOW - timedelta(hours=hours)
        await run(update(Job).where(Job.id == id).values(inserted_at=at))
    return ids


FILTERS = [
    (Filters(), [0, 1, 2]),
    (Filters(states=(JobState.AVAILABLE, JobState.COMPLETED)), [0, 2]),
    (Filters(queue="b"), [1, 2]),
    (Filters(worker="app.A"), [0, 1]),
    (Filters(older_than=5400), [1, 2]),
    (Filters(newer_than=5400), [0]),
    (Filters(newer_than=9000, older_than=5400), [1]),
    (Filters(queue="b", worker="app.A"), [1]),
    (Filters(queue="'; DROP TABLE oban_jobs"), []),
]


@pytest.mark.parametrize("few", [0, 1, 1000])
async def test_each_filter_selects_its_jobs(add: Add, run: Run, few: int, tune: Tune) -> None:
    """The result is the same for few and for many jobs of the states and the queue."""
    tune(browse_module, MOST_FEW=few)
    ids = await add_some(add, run)
    for filters, found in FILTERS:
        expected = [ids[n] for n in found]
        listed = [row.id for row in await run(newest(filters, limit=9, now=NOW))]
        assert listed == expected[::-1]
        last = max(ids)
        assert [
            row.id for row in await run(page(filters, after=0, last=last, limit=9, now=NOW))
        ] == expected
        assert {row.id for row in await run(among(filters, ids, now=NOW))} == set(expected)
        counted = await run(tally(filters, limit=None, now=NOW))
        assert sum(row.count for row in counted) == len(expected)
        assert max((row.last for row in counted), default=None) == max(expected, default=None)


async def test_a_page_lies_between_two_ids(add: Add, run: Run) -> None:
    ids = await add(*(JobFactory() for _ in range(5)))
    rows = await run(page(Filters(), after=ids[0], last=ids[3], limit=2))
    assert [row.id for row in rows] == ids[1:3]


async def test_a_tally_counts_the_oldest_jobs(add: Add, run: Run) -> None:
    ids = await add(JobFactory(completed=True), JobFactory(), JobFactory())
    rows = await run(tally(Filters(), limit=2))
    assert {row.state: (row.count, row.last) for row in rows} == {
        "completed": (1, ids[0]),
        "available": (1, ids[1]),
    }


@pytest.mark.parametrize("errors", [[], {}, "x", [1], [{"error": None}], None])
async def test_errors_of_any_form_are_read(add: Add, run: Run, errors: Any) -> None:
    (id,) = await add(JobFactory())
    value = literal(errors, JSONB(none_as_null=False))
    await run(update(Job).where(Job.id == id).values(errors=value))
    (row,) = await run(newest(Filters(), limit=1))
    assert row.error is None


async def test_a_job_is_read_as_a_whole(add: Add, run: Run) -> None:
    (id,) = await add(JobFactory(executing=True))
    (row,) = await run(whole([id]))
    assert (row.id, row.state, row.attempt) == (id, "executing", 1)
    assert await run(whole([id + 1])) == []
