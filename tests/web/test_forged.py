"""Requests that no form of the dashboard sent, and the headers of pages."""

import pytest

from tests.conftest import Add
from tests.factories import JobFactory
from tests.web.site import Site

CANCEL = [("action", "cancel"), ("id", "1"), ("last", "1"), ("total", "1")]


async def test_a_form_needs_the_token_of_its_browser(site: Site, add: Add) -> None:
    await add(JobFactory())
    token = await site.token()
    for given in ([], [("csrf", "")], [("csrf", "x" * 43)], [("csrf", "\u00e9")]):
        await site.post("/jobs/change", [*CANCEL, *given], 403)
    kept = dict(site.client.cookies)
    site.client.cookies.clear()
    await site.post("/jobs/change", [*CANCEL, token], 403)
    site.client.cookies.set("oban_csrf", "")
    await site.post("/jobs/change", [*CANCEL, ("csrf", "")], 403)
    site.client.cookies.clear()
    site.client.cookies.update(kept)
    await site.post("/jobs/change", [*CANCEL, token])


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
    ],
)
async def test_a_form_of_another_site_is_refused(
    site: Site, add: Add, headers: dict[str, str]
) -> None:
    await add(JobFactory())
    form = [*CANCEL, await site.token()]
    await site.post("/jobs/change", form, 403, headers=headers)
    own = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}
    await site.post("/jobs/change", form, headers=own)


async def test_a_form_that_is_too_large_is_refused(site: Site) -> None:
    token = await site.token()
    await site.post("/jobs/change", [("id", "1" * 1_000_001), token], 413)


async def test_get_requests_change_nothing(site: Site, add: Add) -> None:
    await add(JobFactory())
    for path in ("jobs/confirm", "jobs/change", "jobs/1/edit", "queues/order", "cron/run"):
        assert (await site.client.get(f"/{path}")).status_code in (404, 405)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        response = await site.client.request(method, "/jobs/1", headers={"csrf": "x"})
        assert response.status_code in (403, 405)


async def test_responses_have_security_headers(site: Site) -> None:
    page = await site.get("jobs")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Cache-Control"] == "no-store"
    cookie = page.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    assert "Set-Cookie" not in (await site.get("jobs")).headers
    assert "Secure" in (await site.client.get("https://127.0.0.1/queues")).headers["Set-Cookie"]
    static = await site.get("static/app.js")
    assert "immutable" in static.headers["Cache-Control"]
    await site.get("static/../../reads.py", 404)
    await site.get("static/%2e%2e/reads.py", 404)


async def test_a_page_has_no_inline_script_or_style(site: Site, add: Add) -> None:
    [id] = await add(JobFactory(discarded=True))
    for path in ("", "jobs", f"jobs/{id}", "queues", "errors", "cron", "nowhere"):
        page = await site.client.get(f"/{path}")
        assert "<style" not in page.text
        assert " style=" not in page.text
        assert "<script>" not in page.text
        assert " onclick" not in page.text
