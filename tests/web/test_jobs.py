"""The list of jobs: states, searches, and pages from the newest to the oldest."""

from datetime import UTC, datetime, timedelta

import pytest

from oban_sqla.web import jobs
from oban_sqla.web.search import SearchError, parse
from tests.conftest import Add, Tune
from tests.factories import JobFactory
from tests.web.site import Reader, Site


def ids(page: Reader) -> list[int]:
    return [int(given["value"] or 0) for _, given in page.elements if given.get("name") == "id"]


async def test_an_empty_table_is_shown(site: Site) -> None:
    assert "Enqueue one" in (await site.read("jobs")).text
    assert "No job has failed for the last time" in (await site.read("jobs?state=discarded")).text


async def test_jobs_are_listed_by_state_and_queue(site: Site, add: Add) -> None:
    done, failed, other = await add(
        JobFactory(completed=True), JobFactory(discarded=True), JobFactory(queue="other")
    )
    assert ids(await site.read("jobs")) == [other, failed, done]
    assert ids(await site.read("jobs?state=discarded")) == [failed]
    page = await site.read("jobs?queue=default")
    assert ids(page) == [failed, done]
    assert "2 all" in page.text
    assert "completed 1" in page.text


async def test_pages_go_from_the_newest_to_the_oldest_job(site: Site, add: Add) -> None:
    known = await add(*(JobFactory() for _ in range(120)))
    seen: list[int] = []
    path: str | None = "jobs?state=available"
    while path:
        page = await site.read(path)
        seen += ids(page)
        # A job that is enqueued meanwhile does not move the others.
        await add(JobFactory())
        path = page.link("before=")
    assert seen == known[::-1]


FOUND = [
    ("worker:Mail", ["mail", "old"]),
    ("worker:app.Mail", ["mail", "old"]),
    ("Mail", ["mail", "old"]),
    ("worker:ail", []),
    ("tag:vip", ["mail"]),
    ("queue:reports", ["report"]),
    ("args.user.id:7", ["mail", "report"]),
    ('args.name:"two words"', ["old"]),
    ("args.name:two", []),
    ("error:100%_off", ["report"]),
    ("error:100_", []),
    ("older:1d", ["old"]),
    ("newer:1d", ["mail", "report"]),
    ("worker:Mail newer:1d tag:vip args.user.id:7", ["mail"]),
    ("state:discarded", ["report"]),
]


async def test_a_search_finds_its_jobs(site: Site, add: Add) -> None:
    known = dict(
        zip(
            ("mail", "old", "report"),
            await add(
                JobFactory(worker="app.Mail", tags=["vip", "x"], args={"user": {"id": 7}}),
                JobFactory(
                    worker="app.Mail",
                    args={"name": "two words"},
                    inserted_at=datetime.now(UTC) - timedelta(days=2),
                ),
                JobFactory(
                    discarded=True,
                    worker="app.Report",
                    queue="reports",
                    args={"user": {"id": "7", "more": 1}},
                    errors=[{"attempt": 1, "at": "", "error": "Sale: 100%_OFF"}],
                ),
            ),
            strict=True,
        )
    )
    for search, found in FOUND:
        page = Reader((await site.get("jobs", params={"q": search})).text)
        assert sorted(ids(page)) == sorted(known[name] for name in found), search


async def test_ids_find_their_jobs(site: Site, add: Add) -> None:
    first, _, last = await add(JobFactory(), JobFactory(), JobFactory())
    assert ids(await site.read(f"jobs?q={first}+{last}")) == [last, first]


async def test_a_search_without_an_index_reads_a_part(site: Site, add: Add, tune: Tune) -> None:
    tune(jobs, SCANNED=10, EXACT=0)
    await add(*(JobFactory(worker="app.Rare" if n == 3 else "app.Other") for n in range(25)))
    path: str | None = "jobs?q=worker:Rare"
    looked = 0
    while path and not ids(page := await site.read(path)):
        looked += 1
        assert "Searched down to job" in page.text
        path = page.link("before=")
    assert looked == 2
    assert ids(page) == [4]
    assert page.link("before=") is None


@pytest.mark.parametrize(
    "search",
    [
        "colour:red",
        "args:7",
        "args..x:7",
        "older:soon",
        "newer:99999999999d",
        "worker:",
        "state:lost",
        "0",
        "99999999999999999999999",
        "x" * 1001,
        "a " * 21,
        "args.x:1e999 args.\ud800:7",
    ],
)
def test_an_invalid_search_is_refused(search: str) -> None:
    with pytest.raises((SearchError, ValueError)):
        parse(search).filters()


async def test_the_page_explains_an_invalid_search(site: Site) -> None:
    page = await site.read("jobs?q=colour:red", 400)
    assert "There is no word 'colour'; use worker:" in page.text
    assert "no NUL" in (await site.read("jobs?queue=%00", 400)).text
