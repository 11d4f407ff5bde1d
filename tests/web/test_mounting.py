"""The dashboard in another application, under a prefix and behind a proxy."""

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from oban_sqla import Oban
from oban_sqla.web import dashboard
from tests.conftest import Add
from tests.factories import JobFactory
from tests.web.site import Reader, Site

PATHS = ("", "jobs", "jobs/1", "queues", "errors", "cron", "findings", "nowhere")


def starlette(oban: Oban) -> Starlette:
    return Starlette(routes=[Mount("/ops/oban", dashboard(oban))])


def fastapi(oban: Oban) -> FastAPI:
    app = FastAPI()
    app.mount("/ops/oban", dashboard(oban))
    return app


def behind_a_proxy(oban: Oban) -> ASGIApp:
    """As a server with --root-path does."""
    app = starlette(oban)

    async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "/proxied"}, receive, send)

    return proxied


@pytest.mark.parametrize(
    ("mounted", "at"),
    [(starlette, "/ops/oban"), (fastapi, "/ops/oban"), (behind_a_proxy, "/proxied/ops/oban")],
)
async def test_every_address_is_below_the_prefix(
    oban: Oban, add: Add, mounted: object, at: str
) -> None:
    assert callable(mounted)
    await add(JobFactory(discarded=True))
    site = Site(mounted(oban), at=at)
    async with site.client:
        for path in PATHS:
            response = await site.client.get(f"{at}/{path}")
            for address in Reader(response.text).addresses:
                assert address.startswith((f"{at}/", "#")), address
            assert "//" not in " ".join(Reader(response.text).addresses)
        for address in (await site.read()).addresses:
            if "/static/" in address:
                assert (await site.client.get(address)).status_code == 200
        page = await site.read("jobs")
        refresh = next(given["hx-get"] for tag, given in page.elements if tag == "main")
        assert refresh == f"{at}/jobs"
        asked = await site.send(page, ("action", "retry"), 200, id="1")
        answer = await site.send(Reader(asked.text), ("action", "retry"))
        assert answer.headers["Location"].startswith(f"{at}/jobs")


async def test_the_cookie_is_limited_to_the_prefix(oban: Oban) -> None:
    site = Site(starlette(oban), at="/ops/oban")
    async with site.client:
        assert "Path=/ops/oban;" in (await site.get("queues")).headers["Set-Cookie"]
