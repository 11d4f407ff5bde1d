"""Rights: only this machine by default, or the users that `authorize` accepts."""

from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse

from oban_sqla import Oban
from oban_sqla.web import RIGHTS, Access, dashboard
from tests.conftest import Add
from tests.factories import JobFactory
from tests.web.conftest import Open
from tests.web.site import Site

PAGES = ["", "jobs", "jobs/1", "queues", "errors", "cron", "findings", "live", "static/app.css"]


@pytest.mark.parametrize(
    "peer", [{"peer": "10.0.0.7"}, {"host": "oban.example.com"}, {"host": "evil.test:80"}]
)
async def test_without_authorize_only_this_machine_may_look(
    oban: Oban, peer: dict[str, str]
) -> None:
    stranger = Site(dashboard(oban), **peer)  # type: ignore[arg-type]
    async with stranger.client:
        for path in PAGES:
            refused = await stranger.get(path, 403)
            assert "authorize=" in refused.text
            assert "Content-Security-Policy" in refused.headers


@pytest.mark.parametrize(
    "header", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"]
)
async def test_without_authorize_a_proxy_is_refused(site: Site, header: str) -> None:
    await site.get("", 403, headers={header: "192.0.2.1"})


@pytest.mark.parametrize("host", ["localhost", "localhost:4000", "127.0.0.1:4000", "[::1]:4000"])
async def test_this_machine_by_its_names(oban: Oban, host: str) -> None:
    own = Site(dashboard(oban), host=host, peer="::1" if "::" in host else "127.0.0.1")
    async with own.client:
        await own.get("queues")


async def test_access_can_be_denied(open_site: Open) -> None:
    site = open_site(authorize=lambda request: None)
    for path in PAGES:
        assert (await site.get(path, 403)).text == "You may not see this dashboard."


async def test_a_response_of_authorize_is_sent(open_site: Open) -> None:
    site = open_site(authorize=lambda request: RedirectResponse("/login"))
    assert (await site.get("", 307)).headers["Location"] == "/login"


async def test_an_http_exception_of_authorize_is_sent(open_site: Open) -> None:
    def authorize(request: Request) -> None:
        raise HTTPException(401, "who are you?", headers={"WWW-Authenticate": "Basic"})

    refused = await open_site(authorize=authorize).get("jobs", 401)
    assert refused.text == "who are you?"
    assert refused.headers["WWW-Authenticate"] == "Basic"
    assert "Content-Security-Policy" in refused.headers


async def test_authorize_may_be_asynchronous(open_site: Open) -> None:
    async def authorize(request: Request) -> Any:
        return "read" if request.headers.get("X-User") else None

    site = open_site(authorize=authorize)
    await site.get("", 403)
    await site.get("queues", headers={"X-User": "ann"})


@pytest.mark.parametrize("answer", [True, 7, "all", b"read", {"cancel", "everything"}])
async def test_an_invalid_answer_of_authorize_is_refused(open_site: Open, answer: Any) -> None:
    site = open_site(authorize=lambda request: answer)
    with pytest.raises((TypeError, ValueError), match="rights"):
        await site.get()


async def test_a_reader_sees_no_data_of_users(open_site: Open, add: Add) -> None:
    secret = {"card": "5105-1051"}
    [id] = await add(
        JobFactory(
            discarded=True,
            args=secret,
            meta=secret,
            errors=[{"attempt": 1, "at": "2026-01-01T00:00:00Z", "error": "Boom: 5105-1051"}],
        )
    )
    await add(JobFactory(discarded=True, errors=[{"attempt": 1, "at": "", "error": "5105 fails"}]))
    site = open_site(authorize=lambda request: "read")
    for path in ("jobs", f"jobs/{id}", "errors"):
        assert "5105" not in (await site.get(path)).text
    assert "Boom" in (await site.get("errors")).text
    # A search does not reveal them, either.
    for search in ("args.card:5105-1051", "error:5105"):
        assert "takes the right args" in (await site.get(f"jobs?q={search}", 400)).text
    site = open_site(authorize=lambda request: {"args"})
    for path in ("jobs", f"jobs/{id}", "errors", "jobs?q=args.card:5105-1051"):
        assert "5105" in (await site.get(path)).text


POSTS = {
    "jobs/confirm": [("action", "{}"), ("id", "1")],
    "jobs/change": [("action", "{}"), ("id", "1"), ("last", "9"), ("total", "1")],
    "jobs/1/edit": [("priority", "3")],
    "queues/order": [("action", "pause"), ("queue", "default")],
    "cron/run": [("worker", "x")],
}


@pytest.mark.parametrize("right", ["retry", "cancel", "delete"])
async def test_an_action_needs_its_right(open_site: Open, add: Add, oban: Oban, right: str) -> None:
    await add(JobFactory(retryable=True))
    needed = right
    site = open_site(authorize=lambda request: RIGHTS - {needed})
    token = await site.token()
    for path in POSTS:
        others = {"queues/order": "pause", "jobs/1/edit": "edit", "cron/run": "retry"}
        needed = others.get(path, right)
        fields = [(name, value.format(right)) for name, value in POSTS[path]]
        refused = await site.post(f"/{path}", [*fields, token], 403)
        assert f"the right &#39;{needed}&#39;" in refused.text
        job = await oban.get_one_job(1)
        assert (job.state, job.priority) == ("retryable", 0)


async def test_pages_offer_only_allowed_actions(open_site: Open, add: Add) -> None:
    [id] = await add(JobFactory(retryable=True))
    for rights in (set(), {"retry"}, {"edit", "args"}, RIGHTS):
        site = open_site(authorize=lambda request, rights=rights: Access(frozenset(rights), "ann"))
        page = await site.read(f"jobs/{id}")
        offered = {value for form in page.forms for _, value in form.buttons}
        assert offered == rights & {"retry", "cancel", "delete"}
        edits = any(form.action.endswith("/edit") for form in page.forms)
        assert edits == ("edit" in rights)
        assert "· ann" in page.text
