"""Plans: the frequent statements of oban-py use the indexes of our tables."""

import re
from importlib.resources import files

import psycopg
import pytest

from oban_sqla.statements.counts import counts
from tests.statements.test_plans import INDEX, filled, full, plan, prefix

__all__ = ["filled", "full", "prefix"]

pytestmark = pytest.mark.oban

TABLES = r"\b(oban_job_state|oban_jobs|oban_leaders|oban_producers)\b"


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("fetch_jobs", INDEX),
        ("stage_jobs", "oban_jobs_staging_index"),
        ("ack_job", "oban_jobs_pkey"),
        ("retry_many_jobs", "oban_jobs_pkey"),
        ("cancel_many_jobs", "oban_jobs_pkey"),
    ],
)
async def test_no_statement_scans_the_table(
    full: psycopg.AsyncConnection, prefix: str, query: str, index: str
) -> None:
    written = files("oban.queries").joinpath(f"{query}.sql").read_text()
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", written)))
    numbered = re.sub(r"%\((\w+)\)s", lambda name: f"${names.index(name[1]) + 1}", written)
    qualified = re.sub(TABLES, rf"{prefix}.\1", numbered)
    cursor = await full.execute(f"EXPLAIN (GENERIC_PLAN, COSTS OFF) {qualified}".encode())
    found = "\n".join(line for (line,) in await cursor.fetchall())
    assert "Seq Scan on oban_jobs" not in found, found
    assert index in found, found


async def test_a_page_of_finished_jobs_reads_a_range_of_the_index(
    full: psycopg.AsyncConnection, prefix: str
) -> None:
    """Dashboards and `counts` ask for such pages. Oban's index has the jobs of all states."""
    asked = (
        f"SELECT id FROM {prefix}.oban_jobs WHERE state = 'completed' AND queue = 'q1'"
        " ORDER BY priority, scheduled_at, id LIMIT 20"
    )
    cursor = await full.execute(f"EXPLAIN (COSTS OFF) {asked}".encode())
    found = "\n".join(line for (line,) in await cursor.fetchall())
    assert f"Index Only Scan using {INDEX}" in found, found
    assert INDEX in await plan(full, prefix, counts(prefix=prefix, exact=50_000))
