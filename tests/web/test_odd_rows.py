"""A row that Python can't read breaks no page: its page names it, and other rows are shown."""

from typing import Any

import pytest
from sqlalchemy import insert, literal_column, update
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, Oban, Worker, Workflow
from oban_sqla.models import CronEntry
from oban_sqla.statements.claimed import INSTANTS
from oban_sqla.workers.registry import with_cron
from tests.conftest import Add
from tests.factories import JobFactory
from tests.web.conftest import Open
from tests.web.site import Reader, Site
from tests.web.test_workflows import enqueued

HUGE = "9" * 5001

UNREADABLE = [
    ("scheduled_at", "infinity"),
    ("scheduled_at", "-infinity"),
    ("inserted_at", "20000-01-01 00:00:00"),
    ("inserted_at", "-infinity"),
    ("attempted_at", "0044-03-15 00:00:00 BC"),
    ("completed_at", "infinity"),
    ("discarded_at", "infinity"),
    ("cancelled_at", "-infinity"),
    ("args", f'{{"n": {HUGE}}}'),
    ("meta", f'{{"n": {HUGE}}}'),
    ("errors", f"[{HUGE}]"),
]
ODD = [
    ("args", "[1]"),
    ("meta", "[1]"),
    ("meta", '"workflow_id"'),
    ("meta", '{"workflow_id": {"a": 1}, "name": [1], "cron_name": 7}'),
    ("meta", '{"oban_sqla_limits": {"limit": {"id": "x", "by": 1, "key": [], "allowed": "few"}}}'),
    ("errors", '{"error": "x"}'),
    ("errors", "7"),
    ("errors", '[7, null, [], {"error": {"a": 1}, "at": 7}]'),
    ("errors", '[{"at": "infinity", "attempt": [], "error": ""}]'),
    ("meta", f'{{"deep": {"[" * 900}{"]" * 900}}}'),
    ("tags", "{NULL,x}"),
    ("tags", "{{a,b},{c,d}}"),
    ("attempted_by", "{NULL}"),
]
STATES = ["available", "scheduled", "retryable", "completed", "discarded"]
ERROR = {"attempt": 1, "at": "2026-01-01T00:00:00Z", "error": "Boom"}


def job(state: str) -> Job:
    return JobFactory(**{} if state == "available" else {state: True}, errors=[ERROR])


async def spoil(engine: AsyncEngine, id: int, column: str, value: str) -> None:
    """Store a value as another program may have stored it."""
    change = update(Job).where(Job.id == id).values({column: literal_column(f"'{value}'")})
    async with engine.begin() as connection:
        await connection.execute(change)


def rows(page: Reader) -> set[str | None]:
    return {given["id"] for tag, given in page.elements if tag == "tr" and "id" in given}


@pytest.mark.parametrize("state", STATES)
async def test_pages_show_unreadable_jobs(
    site: Site, add: Add, engine: AsyncEngine, state: str
) -> None:
    odd = await add(*(job(state) for _ in [*UNREADABLE, *ODD]))
    [sound] = await add(job(state))
    for id, (column, value) in zip(odd, [*UNREADABLE, *ODD], strict=True):
        await spoil(engine, id, column, value)
    for path in ("", "?window=day", "errors", "queues", "workflows", "cron"):
        assert "inf " not in (await site.read(path)).text
    for path in (f"jobs?state={state}", "jobs?q=newer:1d+older:1s"):
        await site.get(path)
    assert {f"j{id}" for id in [*odd, sound]} <= rows(await site.read("jobs"))
    assert "Can't be read" not in (await site.read(f"jobs/{sound}")).text
    # All states show a value alike, so look at the page of each value in one state.
    turn, turns = STATES.index(state), len(STATES)
    shown = list(zip(odd, [*UNREADABLE, *ODD], strict=True))[turn::turns]
    for id, (column, value) in shown:
        page = await site.read(f"jobs/{id}")
        named = f"{column} ({value})" if column.endswith("_at") else column
        said = f"Can't be read, so the job can't run: {named}. Correct the row"
        assert (said in page.text) == ((column, value) in UNREADABLE), (column, value)


FAR = [
    *("infinity", "-infinity", "20000-01-01", "0044-03-15 BC"),
    *("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"),
]
READABLE = FAR[-2:]


@pytest.mark.parametrize("at", FAR)
async def test_far_times_of_jobs_are_shown(
    site: Site, add: Add, engine: AsyncEngine, at: str
) -> None:
    shown = []
    for turn, state in enumerate(STATES):
        ids = await add(*(job(state) for _ in INSTANTS))
        for id, column in zip(ids, INSTANTS, strict=True):
            await spoil(engine, id, column, at)
        # Python reads none of the other times, so look at one of their jobs for each state.
        turn += FAR.index(at)
        shown += ids if at in READABLE else [ids[turn % len(ids)]]
    for path in ("", "?window=day", "jobs", "queues", "errors", *(f"jobs/{id}" for id in shown)):
        await site.get(path)


@pytest.mark.parametrize("at", FAR)
async def test_far_times_of_workflows_are_shown(
    site: Site, oban: Oban, engine: AsyncEngine, at: str
) -> None:
    flows = [await enqueued(oban, f"flow {n}") for n in range(3)]
    for flow, column in zip(flows, ("inserted_at", "completed_at", "started_at"), strict=True):
        change = update(Workflow).where(Workflow.id == flow.id)
        async with engine.begin() as connection:
            await connection.execute(change.values({column: literal_column(f"'{at}'")}))
    page = await site.read("workflows")
    assert all(f"flow {n}" in page.text for n in range(3))
    for flow in flows:
        assert "cleanup" in (await site.read(f"workflows/{flow.id}")).text
    ids = [flow.id for flow in flows]
    asked = await site.send(page, ("action", "cancel"), 200, id=ids)
    answer = await site.send(Reader(asked.text), ("action", "cancel"), id=ids)
    assert answer.headers["Location"] == "/workflows?done=cancel&n=3"


@pytest.mark.usefixtures("no_workers")
@pytest.mark.parametrize("at", FAR)
async def test_far_ticks_of_cron_entries_are_shown(
    site: Site, oban: Oban, engine: AsyncEngine, at: str
) -> None:
    for zone in ("America/New_York", "Asia/Tokyo"):

        class Tick(Worker, name=zone, cron={"expr": "0 6 * * *", "timezone": zone}):
            async def process(self, job: Job) -> None: ...

    labels = [entry.cron.label(entry.name) for entry in with_cron() if entry.cron]
    ticked = [
        {"name": oban.name, "entry": label, "ticked_at": literal_column(f"'{at}'")}
        for label in labels
    ]
    async with engine.begin() as connection:
        await connection.execute(insert(CronEntry).values(ticked))
    page = await site.read("cron")
    assert "America/New_York" in page.text
    assert "Asia/Tokyo" in page.text


async def test_unreadable_jobs_are_changed(site: Site, add: Add, engine: AsyncEngine) -> None:
    """Such jobs can be cancelled, retried and deleted."""
    ids = await add(*(job("available") for _ in UNREADABLE))
    token = await site.token()
    for id, (column, value) in zip(ids, UNREADABLE, strict=True):
        await spoil(engine, id, column, value)
        await site.post(f"/jobs/{id}/edit", [("priority", "3"), token], 400)
    count = len(ids)
    chosen = [
        *(("id", str(id)) for id in ids),
        ("last", str(ids[-1])),
        ("total", str(count)),
        token,
    ]
    for action in ("cancel", "retry", "cancel", "delete"):
        await site.post("/jobs/confirm", [("action", action), *chosen], 200)
        answer = await site.post("/jobs/change", [("action", action), *chosen])
        assert answer.headers["Location"] == f"/jobs?done={action}&n={count}"
    for id in ids:
        await site.get(f"jobs/{id}", 404)


async def test_a_mask_is_not_called_for_unreadable_values(
    open_site: Open, add: Add, engine: AsyncEngine
) -> None:
    def mask(field: str, value: Any, worker: str) -> Any:
        assert isinstance(value, dict | list)
        return value

    [id] = await add(job("available"))
    await spoil(engine, id, "args", f'{{"n": {HUGE}, "card": "5105"}}')
    site = open_site(mask=mask)
    # The list does not read arguments of this length.
    for path, shown in (("jobs", "(masked)"), (f"jobs/{id}", "(can't be read)")):
        page = await site.read(path)
        assert "5105" not in page.text
        assert shown in page.text
