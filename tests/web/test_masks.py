"""A mask covers fields in pages and in the results of searches."""

from typing import Any

from tests.conftest import Add
from tests.factories import JobFactory
from tests.web.conftest import Open


def mask(field: str, value: Any, worker: str) -> Any:
    if field == "args" and "password" in value:
        return {**value, "password": "***"}
    if field == "errors":
        return [{**one, "error": one["error"].replace("hunter2", "***")} for one in value]
    return value


async def test_a_mask_covers_values(open_site: Open, add: Add) -> None:
    [id] = await add(
        JobFactory(
            discarded=True,
            args={"user": "ann", "password": "hunter2"},
            errors=[{"attempt": 1, "at": "2026-01-01T00:00:00Z", "error": "Bad: hunter2 of ann"}],
        )
    )
    site = open_site(mask=mask)
    for path in ("jobs", f"jobs/{id}", "errors"):
        text = (await site.get(path)).text
        assert "ann" in text
        assert "hunter2" not in text


async def test_a_search_does_not_reveal_masked_values(open_site: Open, add: Add) -> None:
    [id] = await add(JobFactory(args={"user": "ann", "password": "hunter2"}))
    site = open_site(mask=mask)
    for guess in ("hunter2", "hunter3"):
        refused = await site.get(f"jobs?q=args.password:{guess}", 400)
        assert "is masked" in refused.text
        assert f"jobs/{id}" not in refused.text
    assert f"jobs/{id}" in (await site.get("jobs?q=args.user:ann")).text


async def test_a_mask_that_fails_covers_everything(open_site: Open, add: Add) -> None:
    def broken(field: str, value: Any, worker: str) -> Any:
        raise LookupError(value)

    [id] = await add(JobFactory(discarded=True, args={"password": "hunter2"}))
    site = open_site(mask=broken)
    for path in ("jobs", f"jobs/{id}", "errors"):
        text = (await site.get(path)).text
        assert "hunter2" not in text
        assert "(masked)" in text
