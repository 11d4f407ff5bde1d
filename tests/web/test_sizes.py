"""Pages stay small, and read little, whatever jobs contain."""

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla.monitor.browse import browse
from oban_sqla.monitor.excerpts import LONGEST_ARGS, Excerpt
from oban_sqla.monitor.job_queries import Filters
from oban_sqla.runtime.database import Database
from tests.conftest import Add
from tests.factories import JobFactory
from tests.web.conftest import Open
from tests.web.site import Site

LARGEST = 100_000
MARKUP = "<\"'&>"
FRAME = f'  File "/srv/app/mail.py", line 7, in send\n    {MARKUP * 10}\n'


def error(text: str, attempt: int = 1) -> dict[str, Any]:
    return {"attempt": attempt, "at": "2026-01-01T00:00:00Z", "error": text}


def traceback(frames: int) -> str:
    return f"Traceback (most recent call last):\n{FRAME * frames}OSError: {MARKUP * 100}"


LARGE: dict[str, dict[str, Any]] = {
    "text": {"body": "x" * 1_000_000},
    "markup": {MARKUP: MARKUP * 20_000},
    "numbers": {"n": list(range(10)) * 5_000},
    "deep": {"a": [[[{"b": [{"c": n}]}]] for n in range(2_000)]},
    "keys": {f"{MARKUP}{n}": n for n in range(5_000)},
    "chinese": {"body": "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 50_000},
}


async def test_a_first_visit_is_small(site: Site) -> None:
    page = await site.read()
    files = [one for one in page.addresses if "/static/" in one]
    size = len((await site.get()).content)
    for file in files:
        async with site.client.stream("GET", file) as response:
            size += sum([len(chunk) async for chunk in response.aiter_raw()])
    assert len(files) >= 5
    assert size < LARGEST / 2
    # A compressed page would tell of its token by its length.
    assert "content-encoding" not in (await site.get()).headers


ERRORS = [error(traceback(200), n) for n in range(1, 21)]


async def test_a_list_of_large_jobs_is_small(site: Site, add: Add) -> None:
    fields = {"worker": f"app.{MARKUP * 20}", "tags": [MARKUP * 10] * 20, "queue": MARKUP * 20}
    args = {MARKUP: MARKUP * 2_000}
    await add(
        *(JobFactory(discarded=True, errors=ERRORS[:2], args=args, **fields) for _ in range(51))
    )
    for path in ("", "jobs", "jobs?state=discarded", "errors", "queues"):
        assert len((await site.get(path)).content) < LARGEST, path


@pytest.mark.parametrize("args", LARGE.values(), ids=LARGE.keys())
async def test_the_page_of_a_large_job_is_bounded(
    site: Site, add: Add, args: dict[str, Any]
) -> None:
    meta = {"return": args, "recorded": "json", **args}
    [id] = await add(JobFactory(discarded=True, errors=ERRORS, args=args, meta=meta))
    page = await site.get(f"jobs/{id}")
    assert "more characters" in page.text
    assert len(page.content) < LARGEST


async def test_a_list_reads_little_of_large_jobs(
    engine: AsyncEngine, add: Add, prefix: str
) -> None:
    await add(
        *(JobFactory(args=args, errors=[error(traceback(500))]) for args in LARGE.values()),
        JobFactory(args={"n": 1}, errors=[error("OSError: gone")]),
    )
    found = await browse(Database(engine, prefix), Filters(), limit=9, cut=True)
    small, *large = found
    assert (small.args, small.error) == ({"n": 1}, "OSError: gone")
    for job in large:
        assert isinstance(job.args, Excerpt)
        assert len(job.args) <= LONGEST_ARGS + 1
        assert (job.error or "").startswith("OSError: <")


async def test_the_beginning_of_large_arguments_is_shown(open_site: Open, add: Add) -> None:
    [id] = await add(JobFactory(args={"a": "card 5105", "body": "x" * 10_000}))
    assert '{"a": "card 5105", "body": "xxx' in (await open_site().read("jobs")).text
    # A mask gets the whole value, or nothing.
    masked = open_site(mask=lambda field, value, worker: {"keys": sorted(value)})
    assert "5105" not in (await masked.read("jobs")).text
    assert '"keys"' in (await masked.read(f"jobs/{id}")).text
