"""Actions: select jobs, confirm their number, change them."""

from typing import Any

import pytest
from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession

from oban_sqla import Job, JobState, Oban
from oban_sqla.web import Access, actions, carry_out
from tests.conftest import Add, Tune
from tests.factories import JobFactory
from tests.listening import hear
from tests.web.conftest import Open
from tests.web.site import Reader, Site


async def states(oban: Oban, ids: list[int]) -> list[JobState | None]:
    jobs = [await oban.get_job(id) for id in ids]
    return [job.state if job else None for job in jobs]


async def test_selected_jobs_are_changed(site: Site, add: Add, oban: Oban) -> None:
    ids = await add(
        JobFactory(discarded=True), JobFactory(executing=True), JobFactory(discarded=True)
    )
    chosen = [str(id) for id in ids[:2]]
    page = await site.read("jobs")
    asked = await site.send(page, ("action", "retry"), 200, id=chosen)
    question = Reader(asked.text)
    assert "Retry 1 job?" in question.text
    # The page with the question does not refresh itself: its address is that of a form.
    assert not [given for tag, given in question.elements if tag == "main" and "hx-get" in given]
    assert await states(oban, ids) == ["discarded", "executing", "discarded"]
    with hear(oban, "dashboard_action") as done:
        answer = await site.send(question, ("action", "retry"))
    assert await states(oban, ids) == ["available", "executing", "discarded"]
    assert "1 job retried." in (await site.read(answer.headers["Location"].lstrip("/"))).text
    [action] = done.events
    assert (action.user, action.action, action.count) == ("loopback", "retry_jobs", 1)
    assert action.target == f"jobs {ids[0]}, {ids[1]}"


async def test_all_jobs_of_a_search_are_changed(site: Site, add: Add, oban: Oban) -> None:
    mails = await add(*(JobFactory(worker="app.Mail", queue="a") for _ in range(3)))
    others = await add(JobFactory(queue="a"), JobFactory(worker="app.Mail", queue="b"))
    page = await site.read("jobs?queue=a&q=worker:Mail")
    asked = await site.send(page, ("action", "cancel"), 200, scope="search")
    question = Reader(asked.text)
    assert "Cancel 3 jobs?" in question.text
    # A job that is enqueued after the question is not changed.
    later = await add(JobFactory(worker="app.Mail", queue="a"))
    with hear(oban, "dashboard_action") as done:
        answer = await site.send(question, ("action", "cancel"))
    assert await states(oban, mails) == ["cancelled"] * 3
    assert await states(oban, others + later) == ["available"] * 3
    assert done.events[0].target == "queue:a worker:Mail"
    location = answer.headers["Location"]
    assert location == "/jobs?queue=a&q=worker%3AMail&done=cancel&n=3"


async def test_all_failed_jobs_are_retried_but_not_the_completed(
    site: Site, add: Add, oban: Oban
) -> None:
    ids = await add(JobFactory(completed=True), JobFactory(discarded=True))
    page = await site.read("jobs")
    asked = await site.send(page, ("action", "retry"), 200, scope="search")
    await site.send(Reader(asked.text), ("action", "retry"))
    assert await states(oban, ids) == ["completed", "available"]


async def test_one_job_is_cancelled(site: Site, add: Add, oban: Oban) -> None:
    [id] = await add(JobFactory())
    asked = await site.send(await site.read(f"jobs/{id}"), ("action", "cancel"), 200)
    answer = await site.send(Reader(asked.text), ("action", "cancel"))
    assert answer.headers["Location"] == f"/jobs/{id}?done=cancel&n=1"
    asked = await site.send(await site.read(f"jobs/{id}"), ("action", "delete"), 200)
    answer = await site.send(Reader(asked.text), ("action", "delete"))
    assert answer.headers["Location"] == "/jobs?done=delete&n=1"
    assert await states(oban, [id]) == [None]


async def test_an_action_stops_at_its_time_limit(
    site: Site, add: Add, oban: Oban, tune: Tune
) -> None:
    tune(carry_out, LONGEST=-1.0)
    await add(*(Job(worker="app.Mail") for _ in range(1100)))
    asked = await site.send(await site.read("jobs"), ("action", "delete"), 200, scope="search")
    assert "Delete 1,100 jobs?" in Reader(asked.text).text
    answer = await site.send(Reader(asked.text), ("action", "delete"))
    assert answer.headers["Location"].endswith("n=1000")


async def test_the_changes_before_a_failure_are_reported(
    site: Site, add: Add, oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel = actions._CHANGES["cancel"]
    calls: list[object] = []

    async def fail_later(oban: Oban, jobs: Select[Any], session: AsyncSession) -> int:
        calls.append(jobs)
        if len(calls) == 2:
            raise OSError("the server has gone")
        return await cancel(oban, jobs, session)

    monkeypatch.setitem(actions._CHANGES, "cancel", fail_later)
    await add(*(Job(worker="app.Mail") for _ in range(1100)))
    asked = await site.send(await site.read("jobs"), ("action", "cancel"), 200, scope="search")
    with hear(oban, "dashboard_action") as done:
        failed = await site.send(Reader(asked.text), ("action", "cancel"), 503)
    assert "1,000 jobs were cancelled, and then the database failed." in failed.text
    assert [action.count for action in done.events] == [1000]
    assert await states(oban, [1, 1000, 1001]) == ["cancelled", "cancelled", "available"]


INVALID: list[tuple[list[tuple[str, str]], str]] = [
    ([("action", "explode"), ("id", "1")], "no such action"),
    ([("action", "retry")], "No job is selected"),
    ([("action", "retry"), ("id", "")], "An id is a number"),
    ([("action", "retry"), ("id", "1; DROP TABLE oban_jobs")], "An id is a number"),
    ([("action", "retry"), ("id", "0")], "No job is selected"),
    ([("action", "retry"), ("id", ",".join(map(str, range(1, 5002))))], "up to 5,000"),
    ([("action", "retry"), ("scope", "search"), ("q", "x:y")], "no word"),
    ([("action", "retry"), ("group", "none")], "No job is selected"),
]


async def test_an_invalid_form_is_refused(site: Site) -> None:
    token = await site.token()
    for fields, says in INVALID:
        assert says in (await site.post("/jobs/confirm", [*fields, token], 400)).text


async def test_a_search_for_hidden_values_changes_nothing(
    open_site: Open, add: Add, oban: Oban
) -> None:
    [id] = await add(JobFactory(args={"card": 5105}))
    site = open_site(authorize=lambda request: Access(frozenset({"cancel"})))
    fields = [("action", "cancel"), ("scope", "search"), ("q", "args.card:5105")]
    bounds = [("last", str(id)), ("total", "1")]
    token = await site.token()
    for path in ("/jobs/confirm", "/jobs/change"):
        await site.post(path, [*fields, *bounds, token], 400)
    assert await states(oban, [id]) == ["available"]


async def test_the_log_names_the_user_and_the_action(
    open_site: Open, add: Add, caplog: pytest.LogCaptureFixture
) -> None:
    [id] = await add(JobFactory())
    site = open_site(authorize=lambda request: Access(frozenset({"cancel"}), "ann"))
    fields = [("action", "cancel"), ("id", str(id)), ("last", str(id)), ("total", "1")]
    with caplog.at_level("INFO", "oban_sqla"):
        await site.post("/jobs/change", [*fields, await site.token()])
    assert f"ann did cancel_jobs in the dashboard: jobs {id} (1)" in caplog.text
