"""The cron entries of this process."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, Oban, Worker
from oban_sqla.models import CronEntry
from oban_sqla.web.cron import local
from oban_sqla.workers.registry import with_cron
from tests.listening import hear
from tests.web.site import Reader, Site

pytestmark = pytest.mark.usefixtures("no_workers")


async def test_a_page_without_entries_says_so(site: Site) -> None:
    assert "has a cron entry" in (await site.read("cron")).text


def test_a_tick_is_shown_in_its_zone() -> None:
    tick = datetime(2026, 7, 6, 10, 0, tzinfo=UTC)
    assert local(tick, "America/New_York") == "Mon 06 Jul 06:00 EDT"
    assert local(tick, "UTC") == "Mon 06 Jul 10:00 UTC"
    assert local(None, "UTC") == ""


async def test_ticks_follow_their_zone(site: Site) -> None:
    class Tick(Worker, name="tick", cron={"expr": "30 6 * * *", "timezone": "Asia/Tokyo"}):
        async def process(self, job: Job) -> None: ...

    assert "06:30 JST" in (await site.read("cron")).text


async def test_the_first_pass_of_a_leader_is_no_tick(
    site: Site, oban: Oban, engine: AsyncEngine
) -> None:
    class Tick(Worker, name="tick", cron={"expr": "30 6 * * *", "timezone": "Asia/Tokyo"}):
        async def process(self, job: Job) -> None: ...

    [label] = [entry.cron.label(entry.name) for entry in with_cron() if entry.cron]
    row = {"name": oban.name, "entry": label, "ticked_at": datetime(2026, 1, 4, 20, 11, tzinfo=UTC)}
    async with engine.begin() as connection:
        await connection.execute(insert(CronEntry).values(row))
    assert "05:11" not in (await site.read("cron")).text
    tick = update(CronEntry).values(ticked_at=datetime(2026, 1, 4, 21, 30, tzinfo=UTC))
    async with engine.begin() as connection:
        await connection.execute(tick)
    assert "Mon 05 Jan 06:30 JST" in (await site.read("cron")).text


async def test_an_entry_is_run_now(site: Site, oban: Oban) -> None:
    class Tick(Worker, name="tick", queue="cron", cron={"expr": "0 6 * * *"}):
        async def process(self, job: Job) -> None: ...

    page = await site.read("cron")
    assert "0 6 * * *" in page.text
    with hear(oban, "dashboard_action") as actions:
        sent = await site.send(page, ("worker", "tick"))
    job = await oban.get_one_job(int(sent.headers["Location"].rpartition("/")[2]))
    assert (job.worker, job.queue, job.meta["cron_expr"]) == ("tick", "cron", "0 6 * * *")
    assert [(one.action, one.target) for one in actions.events] == [("run_cron", "tick")]
    assert "available" in (await site.read("cron")).text


async def test_only_a_worker_with_an_entry_is_run(site: Site) -> None:
    class Plain(Worker, name="plain"):
        async def process(self, job: Job) -> None: ...

    token = await site.token()
    for worker in ("plain", "os.system"):
        page = Reader((await site.post("/cron/run", [("worker", worker), token], 404)).text)
        assert "knows no cron entry" in page.text
