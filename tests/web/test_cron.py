"""The cron entries of this process."""

import pytest

from oban_sqla import Job, Oban, Worker
from tests.listening import hear
from tests.web.site import Reader, Site

pytestmark = pytest.mark.usefixtures("no_workers")


async def test_none(site: Site) -> None:
    assert "has a cron entry" in (await site.read("cron")).text


async def test_run_now(site: Site, oban: Oban) -> None:
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


async def test_only_what_has_an_entry(site: Site) -> None:
    class Plain(Worker, name="plain"):
        async def process(self, job: Job) -> None: ...

    token = await site.token()
    for worker in ("plain", "os.system"):
        page = Reader((await site.post("/cron/run", [("worker", worker), token], 404)).text)
        assert "knows no cron entry" in page.text
