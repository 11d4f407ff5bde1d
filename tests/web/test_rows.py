"""The rows to which the arguments of a job refer."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, Oban
from tests.web.conftest import Open

SECRET = "4111-<b>"


@pytest.fixture
async def path(oban: Oban, prefix: str, engine: AsyncEngine) -> str:
    """The page of a job that is about an invoice, and about an unknown customer."""
    id = (await oban.enqueue(Job("app.Bill", {"n": 1}))).id
    args = '{"self": {"$model": "shop.Invoice", "$key": {"id": 7}}}'
    async with engine.begin() as connection:
        statement = text(f'UPDATE "{prefix}".oban_jobs SET args = cast(:args AS jsonb)')
        await connection.execute(statement, {"args": args})
    return f"jobs/{id}"


async def row(model: str, key: Any) -> dict[str, Any] | None:
    return {"card": SECRET} if (model, key) == ("shop.Invoice", {"id": 7}) else None


async def test_a_referenced_row_is_named(open_site: Open, path: str) -> None:
    assert "Refers to shop.Invoice id=7" in (await open_site().read(path)).text


async def test_the_columns_of_the_hook_are_shown(open_site: Open, path: str) -> None:
    page = await open_site(row=row).read(path)
    assert f"Refers to shop.Invoice id=7 card {SECRET}" in page.text
    plain = await open_site(row=lambda model, key: {"paid": True}).read(path)
    assert "paid True" in plain.text
    none = await open_site(row=lambda model, key: None).read(path)
    assert "Refers to shop.Invoice id=7" in none.text


async def test_a_viewer_without_the_right_sees_no_row(open_site: Open, path: str) -> None:
    site = open_site(
        row=row, authorize=lambda request: {"args"} if "full" in request.url.query else "read"
    )
    live = {"HX-Request": "true"}
    # Viewers of a page share what it reads, but not with a viewer who may see less.
    for query in ("?full", "", "?full"):
        text = (await site.get(path + query, headers=live)).text
        assert ("4111" in text) == bool(query)


async def test_the_hook_is_not_called_for_a_masked_reference(open_site: Open, path: str) -> None:
    asked: list[str] = []
    site = open_site(row=lambda model, key: asked.append(model), mask=lambda *_: "covered")
    assert "Invoice" not in (await site.get(path)).text
    assert asked == []


async def test_a_hook_that_fails_or_hangs_delays_no_page(open_site: Open, path: str) -> None:
    def broken(model: str, key: Any) -> None:
        raise LookupError(SECRET)

    async def hanging(model: str, key: Any) -> None:
        await asyncio.Event().wait()

    failed = await open_site(row=broken).read(path)
    assert "The hook row= raised LookupError." in failed.text
    assert "4111" not in failed.text
    hung = await open_site(row=hanging, timeout=0.5).read(path)
    assert "The hook row= raised TimeoutError." in hung.text
