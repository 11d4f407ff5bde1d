"""The dashboard in Debian's Chromium; run these tests with `-m browser`."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uvicorn
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from starlette.types import ASGIApp

from benchmarks.dashboard import FILL
from oban_sqla import Job, Oban, Rate, Worker
from oban_sqla.web import dashboard
from tests.conftest import Add, StartOban
from tests.factories import JobFactory
from tests.listening import hear
from tests.web.test_escaping import ATTACK, attacked
from tests.web.test_show import NOW, TIMES
from tests.web.test_workflows import enqueued

__all__ = ["attacked"]

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 10_000  # milliseconds
PAGES = (
    *("", "jobs", "jobs?state=discarded", "jobs/1", "queues", "workflows", "errors", "cron"),
    "nowhere",
)
SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) if (!one.hadRecentInput) window.shifts.push(one.value);
}).observe({type: "layout-shift", buffered: true});
"""

SHIFTED = "window.shifts.reduce((a, b) => a + b, 0)"
# Let a page read itself again, as after a change of the table, and wait for the new content.
REREAD = """
() => new Promise((done) => {
  if (!document.querySelector("main[hx-get]")) return done();
  document.addEventListener("htmx:after:swap", (event) => {
    if (event.target.id === "main" || event.detail?.ctx?.target?.id === "main") done();
  });
  document.body.dispatchEvent(new CustomEvent("pulse"));
})
"""

Open = Callable[..., Awaitable[Any]]


@pytest.fixture
async def address(oban: Oban) -> AsyncIterator[str]:
    """The dashboard, served over HTTP."""
    async with served(dashboard(oban)) as address:
        yield address


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an application on a port of its own."""
    config = uvicorn.Config(
        app, port=0, lifespan="off", log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    # Not serve(), which would handle the signals of the process.
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    serving = asyncio.create_task(server.main_loop())
    [socket] = server.servers[0].sockets
    try:
        yield f"http://localhost:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        await server.shutdown()


@pytest.fixture
async def open_page(address: str) -> AsyncIterator[Open]:
    """Open a page. Each error that the browser reports fails the test."""
    playwright = pytest.importorskip("playwright.async_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    complaints: list[str] = []
    async with AsyncExitStack() as stack:
        driver = await stack.enter_async_context(playwright.async_playwright())
        flags = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        stack.push_async_callback(browser.close)

        async def open_page(path: str = "", **options: Any) -> Any:
            context = await browser.new_context(**options)
            context.set_default_timeout(PATIENCE)
            page = await context.new_page()
            page.on("console", lambda said: _note(complaints, said))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
            await page.add_init_script(SHIFTS)
            await page.goto(f"{address}/{path}")
            return page

        yield open_page
        assert complaints == []


def _note(complaints: list[str], said: Any) -> None:
    # The browser reports the status of a missing or refused page, which is no error of the page.
    expected = any(status in said.text for status in ("404", "403"))
    if said.type in ("error", "warning") and not expected:
        complaints.append(said.text)


async def some_jobs(add: Add) -> list[int]:
    trace = 'Traceback (most recent call last):\n  File "/srv/mail.py", line 7, in send\nOSError: x'
    error = [{"attempt": 1, "at": "2026-01-01T00:00:00Z", "error": trace}]
    return await add(
        JobFactory(discarded=True, errors=error, worker="app.Mail", tags=["vip"]),
        JobFactory(retryable=True, errors=error),
        JobFactory(scheduled=True, queue="mailers"),
        JobFactory(completed=True),
        JobFactory(cancelled=True),
        JobFactory(executing=True),
        JobFactory(),
    )


async def test_the_script_writes_times_as_the_server_does(open_page: Open) -> None:
    """Otherwise the layout would shift when the script runs."""
    page = await open_page()
    await page.clock.set_fixed_time(NOW)
    told = await page.evaluate(
        """(passed) => passed.map((seconds) => {
          const time = document.body.appendChild(document.createElement("time"));
          time.dateTime = new Date(Date.now() - 1000 * seconds).toISOString();
          tell();
          return time.textContent;
        })""",
        list(TIMES),
    )
    assert told == list(TIMES.values())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 390])
async def test_each_page_is_shown(
    open_page: Open,
    address: str,
    start: StartOban,
    add: Add,
    oban: Oban,
    scheme: str,
    width: int,
) -> None:
    axe = pytest.importorskip("axe_playwright_python.async_playwright").Axe()
    rate = Rate(5, per=60)
    await start(queues={"mailers": {"limit": 3, "paused": True, "rate_limit": rate}})
    await some_jobs(add)
    flow = await enqueued(oban)
    page = await open_page(color_scheme=scheme, viewport={"width": width, "height": 800})

    async def check() -> None:
        await page.wait_for_load_state("load")
        if await page.locator("#findings").count():
            await page.locator("#findings details, #findings .good").first.wait_for()
        await page.evaluate(REREAD)
        shifts = await page.evaluate(SHIFTED)
        assert shifts < 0.01, f"the layout of {page.url} shifts by {shifts}"
        await page.evaluate(
            "document.querySelectorAll('details').forEach((one) => one.open = true)"
        )
        found = await axe.run(page)
        assert found.violations_count == 0, f"{page.url}: {found.generate_report()}"
        wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{page.url} is {wide} pixels too wide"

    for path in (*PAGES, f"workflows/{flow.id}", f"jobs/{flow.steps['report'].id}"):
        await page.goto(f"{address}/{path}")
        await check()
    # The questions before an action.
    for path, action in (("jobs/1", "delete"), (f"workflows/{flow.id}", "cancel")):
        await page.goto(f"{address}/{path}")
        await page.get_by_role("button", name=action).click()
        await page.wait_for_url("**/confirm")
        await check()


async def test_a_page_follows_the_table(open_page: Open, add: Add) -> None:
    overview = await open_page()
    jobs = await open_page("jobs?state=available")
    card = overview.locator(".card.s-available strong")
    assert await card.inner_text() == "0"
    [first] = await add(JobFactory(worker="app.mails.SendMail"))
    await overview.locator(".card.s-available strong", has_text="1").wait_for()
    row = jobs.locator(f"#j{first}")
    await row.wait_for()
    await row.get_by_role("checkbox").check()
    # While jobs are selected, the list does not change. Then it updates again.
    [second] = await add(JobFactory())
    await overview.locator(".card.s-available strong", has_text="2").wait_for()
    assert await jobs.locator(f"#j{second}").count() == 0
    await row.get_by_role("checkbox").uncheck()
    await jobs.locator(f"#j{second}").wait_for()
    assert await overview.evaluate(SHIFTED) < 0.02


async def test_live_can_be_turned_off(open_page: Open, add: Add, oban: Oban) -> None:
    page = await open_page("jobs")
    live = page.get_by_role("button", name="Live")
    await live.click()
    assert await live.get_attribute("aria-pressed") == "false"
    [id] = await add(JobFactory())
    other = await open_page("jobs")
    await other.locator(f"#j{id}").wait_for()
    assert await page.locator(f"#j{id}").count() == 0
    await live.click()
    await page.locator(f"#j{id}").wait_for()


async def test_a_selection_is_retried_by_keyboard(open_page: Open, add: Add, oban: Oban) -> None:
    ids = await some_jobs(add)
    page = await open_page("jobs?state=discarded")
    assert await page.get_by_role("button", name="retry").is_disabled()
    await page.locator("#every").focus()
    await page.keyboard.press("Space")
    await page.get_by_text("1 selected").wait_for()
    await page.get_by_role("button", name="retry").focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Retry 1 job?").wait_for()
    assert await page.evaluate("document.activeElement.value") == "retry"
    await page.keyboard.press("Enter")
    await page.get_by_text("1 job retried.").wait_for()
    assert (await oban.get_one_job(ids[0])).state == "available"


async def test_all_found_jobs_are_deleted(open_page: Open, add: Add, oban: Oban) -> None:
    await some_jobs(add)
    page = await open_page("jobs")
    await page.get_by_role("searchbox").fill("tag:vip")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/jobs?**q=tag*")
    await page.get_by_label("all found jobs").check()
    await page.get_by_role("button", name="delete").click()
    await page.get_by_role("button", name="delete 1 job").click()
    await page.get_by_text("1 job deleted.").wait_for()
    assert await oban.get_job(1) is None


async def test_a_job_is_edited_and_cancelled(open_page: Open, add: Add, oban: Oban) -> None:
    ids = await some_jobs(add)
    page = await open_page(f"jobs/{ids[2]}")
    await page.get_by_label("Priority").fill("7")
    await page.get_by_label("Tags").fill("late, vip")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_text("The job was changed.").wait_for()
    job = await oban.get_one_job(ids[2])
    assert (job.priority, job.tags) == (7, ["late", "vip"])
    await page.get_by_role("button", name="cancel").click()
    await page.get_by_role("button", name="cancel 1 job").click()
    await page.get_by_text("The job was cancelled.").wait_for()
    assert (await oban.get_one_job(ids[2])).state == "cancelled"


async def test_a_queue_is_paused_and_resumed(open_page: Open, start: StartOban) -> None:
    node = await start(queues={"mailers": 3})
    page = await open_page("queues")
    with hear(node, "queue_paused") as paused:
        await page.get_by_role("button", name="pause").first.click()
        await paused.wait()
    await page.locator(".tag", has_text="paused").first.wait_for()
    with hear(node, "queue_resumed") as resumed:
        await page.get_by_role("button", name="resume").first.click()
        await resumed.wait()


async def test_a_graph_follows_its_steps(
    open_page: Open, oban: Oban, sessions: async_sessionmaker[AsyncSession]
) -> None:
    flow = await enqueued(oban)
    page = await open_page(f"workflows/{flow.id}")
    await page.get_by_role("link", name="fetch: available").wait_for()
    first = Job.id == flow.steps["fetch"].id
    async with sessions.begin() as session:
        await session.execute(update(Job).where(first).values(state="executing", attempt=1))
    step = page.get_by_role("link", name="fetch: executing")
    await step.wait_for()
    await step.focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="app.Load").wait_for()
    assert page.url.endswith(f"/jobs/{flow.steps['fetch'].id}")


async def test_the_chosen_theme_is_kept(open_page: Open) -> None:
    page = await open_page(color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = await page.evaluate(colour)
    await page.get_by_role("button", name="Theme").click()
    await page.get_by_role("button", name="Theme").click()
    assert await page.evaluate(colour) != light
    await page.reload()
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"


async def test_scripts_in_a_job_do_not_run(open_page: Open, address: str, attacked: int) -> None:
    page = await open_page()
    for path in ("", "jobs", f"jobs/{attacked}", "queues", "errors"):
        await page.goto(f"{address}/{path}")
        assert await page.locator("img").count() == 0
    assert ATTACK in await page.locator("body").inner_text()


async def test_three_clicks_explain_a_late_queue(
    open_page: Open, start: StartOban, add: Add
) -> None:
    """Three clicks answer it: the queue, a job, and where to resume the queue."""
    node = await start(queues={"mailers": {"limit": 3, "paused": True}, "media": 2})
    late = datetime.now(UTC) - timedelta(minutes=5)
    await add(*(JobFactory(queue="mailers", scheduled_at=late) for _ in range(3)))
    page = await open_page()
    row = page.get_by_role("row", name="mailers paused")
    await row.get_by_text("5 min", exact=True).wait_for()
    await row.get_by_role("link", name="mailers").click()
    await page.wait_for_url("**/jobs?**state=available*")
    await page.locator("tbody tr .what a").first.click()
    await page.get_by_text("Queue mailers is paused").wait_for()
    await page.get_by_role("link", name="to the queue").click()
    card = page.locator(".queue", has=page.get_by_role("heading", name="mailers"))
    with hear(node, "queue_resumed") as resumed:
        await card.get_by_role("button", name="resume").first.click()
        await resumed.wait()


async def test_a_rate_is_set(open_page: Open, start: StartOban) -> None:
    await start(queues={"mailers": 3})
    page = await open_page("queues")
    await page.get_by_text("Limits over all nodes:").click()
    await page.get_by_label("at once").fill("20")
    await page.get_by_label("starts").fill("14")
    await page.get_by_label("in seconds").fill("1.5")
    await page.get_by_label("burst").fill("6")
    await page.get_by_role("button", name="set").click()
    await page.get_by_text("The nodes that run queue mailers are told").wait_for()
    await page.get_by_text("14 starts in 1.5 s, and a burst of 6").wait_for()
    await page.get_by_text("20 at once on all nodes").wait_for()


async def test_workflows_are_cancelled(open_page: Open, oban: Oban) -> None:
    for n in range(3):
        await enqueued(oban, f"import {n}")
    page = await open_page("workflows")
    await page.get_by_label("Workflow import 2").check()
    await page.get_by_label("Workflow import 0").check()
    await page.get_by_text("2 selected").wait_for()
    await page.get_by_role("button", name="cancel").click()
    await page.get_by_role("heading", name="Cancel 2 workflows?").wait_for()
    await page.get_by_role("button", name="cancel 2 workflows").click()
    await page.get_by_text("2 workflows cancelled.").wait_for()


async def test_a_workflow_is_retried(
    open_page: Open, oban: Oban, sessions: async_sessionmaker[AsyncSession]
) -> None:
    flow = await enqueued(oban)
    await oban.cancel(flow)
    page = await open_page(f"workflows/{flow.id}")
    await page.get_by_role("link", name="fetch: cancelled").wait_for()
    await page.get_by_role("button", name="retry").click()
    await page.get_by_role("button", name="retry 1 workflow").click()
    await page.get_by_text("The workflow was retried.").wait_for()
    await page.get_by_role("link", name="fetch: available").wait_for()


async def test_a_queue_is_scaled_on_a_node(open_page: Open, start: StartOban) -> None:
    await start(queues={"mailers": 3}, node="n1")
    page = await open_page("queues")
    await page.get_by_text("1 node: n1").click()
    await page.get_by_label("Limit of mailers on n1").fill("7")
    await page.get_by_role("button", name="scale").click()
    await page.get_by_role("row", name="n1 0/7").wait_for()


async def test_a_form_of_another_site_changes_nothing(
    open_page: Open, address: str, add: Add, oban: Oban
) -> None:
    [id] = await add(JobFactory())
    page = await open_page(f"jobs/{id}")  # so that the browser has the cookie
    form = f"""<form method="post" action="{address}/jobs/change">
        <input name="id" value="{id}"><input name="last" value="{id}"><input name="total" value="1">
        <button name="action" value="delete">You have won</button></form>"""
    for place in ("http://shop.test/", "http://127.0.0.1/"):
        await page.route(
            f"{place}**", lambda route: route.fulfill(body=form, content_type="text/html")
        )
        await page.goto(place)
        async with page.expect_response("**/jobs/change") as answer:
            await page.get_by_role("button", name="You have won").click()
        assert (await answer.value).status == 403
    assert await oban.get_job(id) is not None


async def test_a_reader_sees_no_data_and_no_buttons(
    open_page: Open, oban: Oban, add: Add, start: StartOban
) -> None:
    await start(queues={"mailers": {"limit": 3, "paused": True}})
    [id] = await add(JobFactory(queue="mailers", args={"card": "5105"}, meta={"note": "5105"}))
    flow = await enqueued(oban)
    async with served(dashboard(oban, authorize=lambda request: "read")) as address:
        page = await open_page()
        pages = ("", "jobs", f"jobs/{id}", "queues", f"workflows/{flow.id}", "errors", "cron")
        for path in pages:
            await page.goto(f"{address}/{path}")
            assert "5105" not in await page.content()
            assert await page.locator("form[method=post] button, input[type=checkbox]").count() == 0
        await page.goto("about:blank")  # ends the stream before the server


async def test_a_stranger_sees_nothing(open_page: Open, oban: Oban) -> None:
    async with served(dashboard(oban, authorize=lambda request: None)) as address:
        page = await open_page()
        answer = await page.goto(f"{address}/jobs")
        assert answer.status == 403


async def test_a_cron_entry_is_run_now(open_page: Open, no_workers: None) -> None:
    class Tick(Worker, name="app.Tick", cron="0 6 * * *"):
        async def process(self, job: Job) -> None: ...

    page = await open_page("cron")
    await page.get_by_role("button", name="run now").click()
    await page.get_by_role("heading", name="app.Tick").wait_for()


async def test_a_group_of_errors_is_retried(open_page: Open, add: Add, oban: Oban) -> None:
    ids = await some_jobs(add)
    page = await open_page("errors")
    await page.get_by_role("heading", name="OSError: x").wait_for()
    await page.get_by_role("button", name="retry").click()
    await page.get_by_role("button", name="retry 2 jobs").click()
    await page.get_by_text("2 jobs retried.").wait_for()
    assert {(await oban.get_one_job(id)).state for id in ids[:2]} == {"available"}


async def test_charts_have_words_and_a_table(open_page: Open, add: Add) -> None:
    now = datetime.now(UTC)
    await add(JobFactory(completed=True, attempted_at=now, completed_at=now))
    page = await open_page()
    chart = page.get_by_role("img", name="Jobs that ended in the last hour")
    await chart.wait_for()
    assert await chart.locator("desc").text_content() == "1 completed"
    await page.locator("#main .plot g", has=page.locator(".f-completed")).hover()
    await page.locator(".tip", has_text=re.compile(r"^\d\d:\d\d\s+1 completed$")).wait_for()
    await page.get_by_text("as a table").first.click()
    table = page.get_by_role("region", name="jobs that ended")
    await table.get_by_role("cell", name="1 completed").wait_for()
    # The table stays open when the chart follows the jobs.
    await add(JobFactory(completed=True, attempted_at=now, completed_at=now))
    await table.get_by_role("cell", name="2 completed").wait_for(timeout=2 * PATIENCE)


@pytest.mark.timeout(300)
async def test_a_million_jobs_are_browsed(
    open_page: Open, address: str, engine: AsyncEngine, prefix: str
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(f'SET LOCAL search_path TO "{prefix}"'))
        await connection.execute(text(FILL), {"rows": 1_000_000})
        await connection.execute(text("ANALYZE oban_jobs"))
    page = await open_page()
    # What the pages show, from the rows of FILL.
    for path, shown in (
        ("", "2,973"),
        ("jobs", "1000000"),
        ("jobs?state=completed", "shop.Resize"),
        ("jobs?state=available&q=args.user.id:4710", "shop.Charge"),
        ("jobs?q=tag:vip", "vip"),
        ("jobs/500000", "500000"),
        ("errors", "TimeoutError: gave up on user"),
        ("queues", "billing"),
    ):
        answer = await page.goto(f"{address}/{path}")
        assert answer.status == 200
        assert len(await answer.body()) < 100_000
        await page.locator("main", has_text=shown).wait_for()
    await page.goto(f"{address}/jobs")
    first = await page.locator("tbody tr").first.get_attribute("id")
    await page.get_by_role("link", name="older").click()
    await page.get_by_role("link", name="newest").wait_for()
    assert await page.locator("tbody tr").count() == 50
    assert await page.locator("tbody tr").first.get_attribute("id") == "j999950"
    assert first == "j1000000"
