"""Requests that no page makes are refused or answered, and reach nothing that they must not."""

from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import event

from oban_sqla import Oban
from oban_sqla.monitor.browse import summary
from oban_sqla.web import dashboard
from tests.conftest import Add
from tests.factories import JobFactory
from tests.web.conftest import Open
from tests.web.site import Site

DIGITS = "9" * 5000
LONG_ID = f"00000000000000000001{'9' * 900}"

NOT_FOUND = [
    f"jobs/{DIGITS}",
    "jobs/%D9%A3",  # another script's digit
    "jobs/%00",
    "workflows/%00",
    "static/x%00.css",
    "static/..%5c..%5creads.py",
    "static/%2fetc/passwd",
    f"static/{'a' * 5000}",
    "jobs//evil.test",
]
REFUSED = [
    f"jobs?q={LONG_ID}",
    "jobs?state=%00",
    f"jobs?q=args.{'.'.join('a' * 480)}:1",
    "jobs?q=args.x:1e400",
    f"jobs?q={'%22' * 999}",
    "jobs?q=newer:999999999d",
]
NOTHING_FOUND = [
    f"jobs?state=cancelled&before={DIGITS}",
    f"jobs?queue={'x' * 50_000}",
    "jobs?q=error:%25",
    "jobs?q=worker:%25",
    "workflows?q=%25",
    "jobs?q=tag:%7B%22",
    f"jobs?q=args.x:{'[' * 900}",
    f"jobs?q=args.x:{'9' * 900}",
    "jobs?q=%ED%A0%80",  # half of a character
    "workflows?q=%00x&before=%00",
]


async def test_unknown_paths_are_not_found(site: Site) -> None:
    for path in NOT_FOUND:
        await site.get(path, 404)


async def test_invalid_searches_are_refused(site: Site, add: Add) -> None:
    await add(JobFactory(discarded=True))
    for path in REFUSED:
        assert 'id="j1"' not in (await site.get(path, 400)).text, path


async def test_odd_searches_find_nothing(site: Site, add: Add) -> None:
    await add(JobFactory(discarded=True))
    assert 'id="j1"' in (await site.get("jobs")).text
    for path in NOTHING_FOUND:
        assert 'id="j1"' not in (await site.get(path)).text, path


FORMS: list[tuple[str, dict[str, str], int]] = [
    ("queues/order", {"action": "pause", "queue": "a\0b"}, 400),
    ("queues/order", {"action": "pause", "queue": "x" * 100_000}, 400),
    ("queues/order", {"action": "pause", "queue": "default", "node": "a\0b"}, 400),
    ("queues/order", {"action": "scale", "queue": "default", "limit": "\u00b2"}, 400),
    ("jobs/1/edit", {"tags": "a\0b"}, 400),
    ("jobs/1/edit", {"priority": DIGITS}, 400),
    ("jobs/1/edit", {"scheduled_at": "9999-12-31T23:59:59-23:00"}, 400),
    ("jobs/1/edit", {"scheduled_at": "infinity"}, 400),
    (f"jobs/{DIGITS}/edit", {"priority": "3"}, 404),
    ("jobs/confirm", {"action": "cancel", "id": "9" * 19}, 400),
    ("jobs/confirm", {"action": "cancel", "id": "\u0663"}, 400),
    ("jobs/confirm", {"action": "cancel", "scope": "search", "q": LONG_ID}, 400),
    ("jobs/confirm", {"action": "cancel", "scope": "search", "queue": "\0"}, 400),
    ("jobs/confirm", {"action": "__class__", "id": "1"}, 400),
    ("cron/run", {"worker": "a\0b"}, 404),
]


async def test_forged_forms_change_nothing(site: Site, add: Add, oban: Oban) -> None:
    await add(JobFactory())
    token = await site.token()
    for path, fields, status in FORMS:
        await site.post(f"/{path}", [*fields.items(), token], status)
        job = await oban.get_one_job(1)
        assert (job.state, job.priority, job.tags) == ("available", 0, []), (path, fields)


async def test_a_forged_form_can_not_edit_the_worker(site: Site, add: Add, oban: Oban) -> None:
    await add(JobFactory(worker="app.Mail", args={"n": 1}))
    evil = {"worker": "os.system", "args": '{"n": 2}', "queue": "evil", "state": "completed"}
    await site.post("/jobs/1/edit", [*evil.items(), ("priority", "3"), await site.token()])
    job = await oban.get_one_job(1)
    assert (job.worker, job.args, job.queue, job.state) == (
        "app.Mail", {"n": 1}, "default", "available",
    )  # fmt: skip


async def test_a_form_redirects_to_no_other_site(site: Site, add: Add) -> None:
    await add(JobFactory())
    fields = {"action": "cancel", "id": "1", "last": "1", "total": "1"}
    for back in ("//evil.test", "https://evil.test", "/", "jobs/1\r\nX: y", "jobs/7/../../x"):
        token = await site.token()
        form = [*fields.items(), ("back", back), token]
        sent = await site.post("/jobs/change", form)
        assert sent.headers["Location"].startswith("/jobs?")
        assert "evil" not in (await site.post("/jobs/confirm", form, 200)).headers.values()


async def test_a_target_forges_no_line_of_the_log(site: Site, add: Add, oban: Oban) -> None:
    await add(JobFactory(queue="a\nINFO b"))
    done: list[Any] = []
    event.listen(oban, "dashboard_action", lambda oban, action: done.append(action))
    fields = {"action": "cancel", "scope": "search", "queue": "a\nINFO b"}
    fields |= {"q": "newer:1d\r\nolder:0s", "last": "9", "total": "9"}
    await site.post("/jobs/change", [*fields.items(), await site.token()])
    assert [action.target for action in done] == ["queue:a INFO b newer:1d  older:0s"]


@pytest.mark.parametrize("origin", ["http://[", "http://localhost@evil.test"])
async def test_an_invalid_origin_is_refused(site: Site, add: Add, origin: str) -> None:
    await add(JobFactory())
    form = [("action", "cancel"), ("id", "1"), await site.token()]
    await site.post("/jobs/confirm", form, 403, headers={"Origin": origin})


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Referer": "https://ops.example.com/jobs"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://ops.example.com"},
        {"Sec-Fetch-Site": "same-origin", "Referer": "http://["},
        {"X-Forwarded-Proto": "https"},
        {"X-Original-URL": "/"},
        {"CF-Connecting-IP": "192.0.2.1"},
    ],
)
async def test_without_authorize_traces_of_a_proxy_are_refused(
    site: Site, headers: dict[str, str]
) -> None:
    await site.get("queues", 403, headers=headers)
    own = {"Sec-Fetch-Site": "same-origin", "Referer": "http://localhost:4000/jobs"}
    await site.get("queues", headers=own)
    # A link on another site leads here.
    await site.get("queues", headers={"Sec-Fetch-Site": "cross-site", "Referer": "https://x.test/"})


async def test_without_authorize_http_1_0_is_refused(oban: Oban) -> None:
    """Browsers speak HTTP/1.1; some proxies speak HTTP/1.0 to the servers behind them."""
    app = dashboard(oban)

    async def old(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "http_version": "1.0"}, receive, send)

    site = Site(old)
    async with site.client:
        await site.get("queues", 403)


async def test_a_mount_point_beyond_ascii_gets_a_cookie(oban: Oban) -> None:
    app = dashboard(oban)

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/ü;\r\nX: y"}, receive, send)

    site = Site(mounted, at="/%C3%BC%3B%0D%0AX:%20y")
    async with site.client:
        page = await site.get("queues")
    assert "Path=/%C3%BC%3B%0D%0AX%3A%20y;" in page.headers["Set-Cookie"]


async def test_a_mask_of_recorded_values_covers_them_in_meta(open_site: Open, add: Add) -> None:
    meta = {"recorded": "json", "return": "hunter2"}
    await add(JobFactory(completed=True, meta=meta))
    site = open_site(mask=lambda field, value, worker: "*" if field == "recorded" else value)
    assert "hunter2" not in (await site.get("jobs/1")).text


async def test_a_search_does_not_spell_out_a_masked_error(open_site: Open, add: Add) -> None:
    def mask(field: str, value: Any, worker: str) -> Any:
        covered = [{**one, "error": one["error"].replace("hunter2", "*")} for one in value]
        return covered if field == "errors" else value

    await add(JobFactory(discarded=True, errors=[{"attempt": 1, "at": "", "error": "hunter2"}]))
    site = open_site(mask=mask)
    for guess in ("hunter2", "hunte", "x"):
        assert "can't be searched" in (await site.read(f"jobs?q=error:{guess}", 400)).text
        form = {"action": "cancel", "scope": "search", "q": f"error:{guess}"}
        await site.post("/jobs/confirm", [*form.items(), await site.token()], 400)


def test_a_text_of_many_lines_is_summarized_quickly() -> None:
    assert summary("\n" * 100_000) == ""


async def test_a_form_of_many_fields_is_refused(site: Site, add: Add) -> None:
    await add(JobFactory())
    fields = [("id", str(id)) for id in range(1, 5002)]
    token = await site.token()
    form = urlencode([("action", "cancel"), *fields, token])
    refused = await site.client.post("/jobs/confirm", content=form)
    assert refused.status_code == 400
    assert "up to 5,000 jobs" in refused.text
