"""Workflows and their graphs."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pytest
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban, Workflow
from oban_sqla.web.layout import HEIGHT, NARROWEST, WIDEST, box_of, lay_out
from tests.listening import hear
from tests.web.conftest import Open
from tests.web.site import Reader, Site
from tests.web.test_escaping import ATTACK

Sessions = async_sessionmaker[AsyncSession]


def step(n: int = 0) -> Job:
    return Job("app.Load", {"n": n})


async def enqueued(oban: Oban, name: str = "import") -> Workflow:
    flow = Workflow(name, meta={"file": "feed.csv"})
    fetch = flow.add("fetch", step())
    parts = [flow.add(f"load-{n}", step(n), deps=fetch) for n in range(3)]
    flow.add("report", step(), deps=[*parts, fetch])
    flow.add_last("cleanup", step())
    await oban.enqueue(flow)
    return flow


async def test_a_page_without_workflows_says_so(site: Site) -> None:
    assert "There is no workflow" in (await site.read("workflows")).text
    assert "no such workflow" in (await site.read("workflows/nothing", 404)).text


async def test_the_list_shows_workflows(site: Site, oban: Oban) -> None:
    flows = [await enqueued(oban, f"import {n}") for n in range(3)]
    page = await site.read("workflows")
    assert "import 2 executing 0 /6" in page.text
    assert flows[0].id in " ".join(page.addresses)
    assert "import 1" not in (await site.read("workflows?q=PORT+2")).text
    assert "No workflow matches" in (await site.read("workflows?state=completed")).text


async def test_the_list_has_pages(site: Site, oban: Oban) -> None:
    for n in range(60):
        flow = Workflow(f"flow-{n}")
        flow.add("only", step())
        await oban.enqueue(flow)
    page = await site.read("workflows")
    assert "flow-59" in page.text
    assert "flow-9 " not in page.text
    older = page.link("before=")
    assert older is not None
    page = await site.read(older)
    assert page.text.index("flow-9 ") < page.text.index("flow-0 ")
    assert page.link("before=") is None


async def test_a_workflow_is_drawn_as_a_graph(site: Site, oban: Oban, sessions: Sessions) -> None:
    flow = await enqueued(oban)
    first = flow.steps["fetch"].id
    async with sessions.begin() as session:
        await session.execute(
            update(Job).where(Job.id == first).values(state=JobState.EXECUTING, attempt=1)
        )
    page = await site.read(f"workflows/{flow.id}")
    assert "executing 1" in page.text
    assert "suspended 5" in page.text
    assert "feed.csv" in page.text
    labels = [given.get("aria-label") for tag, given in page.elements if tag == "a"]
    assert "fetch: executing" in labels
    assert "cleanup: suspended" in labels
    # fetch to 3 parts and to the report, the parts to the report, the report to the last step.
    edges = [given for tag, given in page.elements if given.get("class") == "edge"]
    assert len(edges) == 8
    job = await site.read(f"jobs/{flow.steps['report'].id}")
    assert "It waits for steps fetch, load-0, load-1, load-2." in job.text
    assert f"workflows/{flow.id}" in " ".join(job.addresses)


async def test_the_duration_of_steps_is_shown(site: Site, oban: Oban, sessions: Sessions) -> None:
    flow = await enqueued(oban)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    ended = Job.id == flow.steps["fetch"].id
    again = Job.id == flow.steps["load-0"].id
    async with sessions.begin() as session:
        times = {"attempted_at": began, "completed_at": began + timedelta(seconds=42)}
        await session.execute(update(Job).where(ended).values(state="completed", **times))
        # A retried step keeps the time at which it had ended before.
        times = {"attempted_at": began, "discarded_at": began - timedelta(seconds=77)}
        await session.execute(update(Job).where(again).values(state="executing", **times))
    text = (await site.read(f"workflows/{flow.id}")).text
    assert "completed · 42 s" in text
    assert "executing · " not in text


async def test_a_deleted_job_keeps_its_place(site: Site, oban: Oban, sessions: Sessions) -> None:
    flow = await enqueued(oban)
    async with sessions.begin() as session:
        await session.execute(delete(Job).where(Job.id == flow.steps["fetch"].id))
    assert "deleted" in (await site.read(f"workflows/{flow.id}")).text


async def test_a_workflow_within_a_workflow_is_shown(site: Site, oban: Oban) -> None:
    outer, inner = Workflow("outer"), Workflow("inner")
    first = outer.add("first", step())
    inner.add("within", step())
    outer.add_workflow("part", inner, deps=first)
    await oban.enqueue(outer)
    assert "within" in (await site.read(f"workflows/{outer.id}")).text
    assert outer.id in " ".join((await site.read(f"workflows/{inner.id}")).addresses)
    assert "inner" not in (await site.read("workflows")).text


async def test_markup_in_a_workflow_is_escaped(open_site: Open, oban: Oban) -> None:
    flow = Workflow(ATTACK, meta={ATTACK: ATTACK})
    flow.id = f"a/b?c#{ATTACK}"
    flow.add(ATTACK, Job("app.Load"))
    await oban.enqueue(flow)
    site = open_site()
    page = await site.read("workflows")
    assert "img" not in {tag for tag, _ in page.elements}
    [path] = {one for one in page.addresses if "/workflows/a" in one}
    page = await site.read(path.lstrip("/"))
    assert "img" not in {tag for tag, _ in page.elements}
    assert ATTACK in page.text
    # A page that updates itself requests its own address.
    again = next(given["hx-get"] for tag, given in page.elements if tag == "main")
    assert unquote(again or "") == unquote(path)
    reader = open_site(authorize=lambda request: "read")
    assert "c#" not in (await reader.read(path.lstrip("/"))).text.partition("Meta")[2]


def test_steps_are_drawn_in_layers() -> None:
    # 1 before 2 and 3, both before 4; also 1 before 4, past the middle layer.
    graph = lay_out([1, 2, 3, 4], {1: [2, 3, 4], 2: [4], 3: [4, 99]})
    columns = {step: x for step, (x, _) in graph.corners.items()}
    assert columns[1] < columns[2] == columns[3] < columns[4]
    assert len(graph.lines) == 5
    assert abs(graph.corners[2][1] - graph.corners[3][1]) >= HEIGHT
    assert graph.width == columns[4] + NARROWEST
    past = next(path for a, b, path in graph.lines if (a, b) == (1, 4))
    assert "H" in past
    assert lay_out([], {}).width == 0


def test_boxes_fit_their_names() -> None:
    assert box_of(["a", "fetch"]) == NARROWEST
    assert NARROWEST < box_of(["load_orders_staging"]) < WIDEST
    assert box_of(["x" * 200]) == WIDEST
    assert lay_out([1, 2], {1: [2]}, WIDEST).corners[2][0] > WIDEST


def test_lines_cross_only_where_they_must() -> None:
    # Two chains, in the wrong order.
    graph = lay_out([1, 2, 3, 4], {1: [4], 2: [3]})
    y = {step: corner[1] for step, corner in graph.corners.items()}
    assert (y[1] < y[2]) == (y[4] < y[3])


async def states_of(oban: Oban, flow: Workflow) -> set[str]:
    jobs = [await oban.get_one_job(job.id) for job in flow.steps.values()]
    return {str(job.state) for job in jobs}


async def test_a_selection_is_cancelled_and_retried(site: Site, oban: Oban) -> None:
    flows = [await enqueued(oban, f"import {n}") for n in range(3)]
    page = await site.read("workflows")
    chosen = [flow.id for flow in flows[:2]]
    asked = Reader((await site.send(page, ("action", "cancel"), 200, id=chosen)).text)
    assert "Cancel 2 workflows?" in asked.text
    assert "12 steps that have not ended" in asked.text
    assert "cancelled" not in await states_of(oban, flows[0])
    with hear(oban, "dashboard_action") as done:
        answer = await site.send(asked, ("action", "cancel"), id=chosen)
    assert "cancelled" in await states_of(oban, flows[0])
    assert "cancelled" not in await states_of(oban, flows[2])
    [action] = done.events
    assert (action.action, action.count) == ("cancel_workflows", 2)
    assert action.target == f"workflows {chosen[0]}, {chosen[1]}"
    shown = await site.read(answer.headers["Location"].lstrip("/"))
    assert "2 workflows cancelled." in shown.text
    again = await site.send(page, ("action", "retry"), 200, id=chosen)
    answer = await site.send(Reader(again.text), ("action", "retry"), id=chosen)
    assert "available" in await states_of(oban, flows[0])
    assert answer.headers["Location"] == "/workflows?done=retry&n=2"


async def test_all_workflows_of_a_search_are_cancelled(site: Site, oban: Oban) -> None:
    flows = [await enqueued(oban, name) for name in ("import a", "import b", "export")]
    page = await site.read("workflows?q=import")
    asked = Reader((await site.send(page, ("action", "cancel"), 200, scope="search")).text)
    assert "Cancel 2 workflows?" in asked.text
    # A workflow that is enqueued after the question is not changed.
    later = await enqueued(oban, "import c")
    ids = [value for name, value in asked.forms[0].fields if name == "id"]
    assert ids == [flow.id for flow in flows[:2]]
    answer = await site.send(asked, ("action", "cancel"))
    assert answer.headers["Location"] == "/workflows?q=import&done=cancel&n=2"
    assert "cancelled" not in await states_of(oban, flows[2]) | await states_of(oban, later)


async def test_one_workflow_is_cancelled_on_its_page(site: Site, oban: Oban) -> None:
    flow = await enqueued(oban)
    page = await site.read(f"workflows/{flow.id}")
    asked = Reader((await site.send(page, ("action", "cancel"), 200)).text)
    answer = await site.send(asked, ("action", "cancel"))
    shown = await site.read(answer.headers["Location"].lstrip("/"))
    assert "The workflow was cancelled." in shown.text


async def test_an_invalid_action_is_refused(open_site: Open, oban: Oban) -> None:
    flow = await enqueued(oban)
    site = open_site()
    token = await site.token()
    for path in ("/workflows/confirm", "/workflows/change"):
        for fields in (
            [("action", "delete"), ("id", flow.id)],
            [("action", "cancel")],
            [("action", "cancel"), ("id", "\0")],
            [("action", "cancel"), *(("id", str(n)) for n in range(501))],
        ):
            await site.post(path, [*fields, token], 400)
        reader = open_site(authorize=lambda request: {"retry"})
        fields = [("action", "cancel"), ("id", flow.id), await reader.token()]
        await reader.post(path, fields, 403)
    assert "cancelled" not in await states_of(oban, flow)
    odd = [("action", "cancel"), ("scope", "search"), ("q", "\0"), ("state", "\0"), token]
    await site.post("/workflows/confirm", odd, 200)


async def test_the_changes_before_a_failure_are_reported(
    site: Site, oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows = [await enqueued(oban, f"import {n}") for n in range(2)]
    cancel = oban.cancel

    async def failing(id: str, *, conn: Any) -> int:
        if id == flows[1].id:
            raise OSError("gone")
        return await cancel(id, conn=conn)

    monkeypatch.setattr(oban, "cancel", failing)
    fields = [("action", "cancel"), *(("id", flow.id) for flow in flows), await site.token()]
    with hear(oban, "dashboard_action") as done:
        page = await site.post("/workflows/change", fields, 503)
    assert "1 workflow was cancelled, and then the database failed." in Reader(page.text).text
    assert [one.count for one in done.events] == [1]
