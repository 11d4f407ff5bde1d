"""Markup in jobs is shown as text on every page."""

from itertools import product

import pytest

from oban_sqla.web.show import pretty
from tests.conftest import Add
from tests.factories import JobFactory
from tests.web.conftest import Open
from tests.web.site import Reader, Site

ATTACK = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{12345679*8}}"


@pytest.fixture
async def attacked(add: Add) -> int:
    """A job with markup in each text field."""
    job = JobFactory(
        discarded=True,
        worker=f"app.{ATTACK}",
        queue=ATTACK,
        tags=[ATTACK.lower()],
        args={ATTACK: [ATTACK, {ATTACK: ATTACK}], "self": {"$model": ATTACK, "$key": ATTACK}},
        meta={ATTACK: ATTACK, "recorded": "json", "return": ATTACK},
        attempted_by=[ATTACK, ATTACK],
        errors=[
            {"attempt": ATTACK, "at": ATTACK, "error": ATTACK},
            {"attempt": 1, "at": "2026-01-01T00:00:00Z", "error": f'  File "{ATTACK}"\n{ATTACK}'},
            {ATTACK: ATTACK},
        ],
    )
    [id] = await add(job)
    return id


async def test_markup_in_every_field_of_a_job_is_escaped(site: Site, attacked: int) -> None:
    token = await site.token()
    chosen = [("action", "retry"), ("id", str(attacked)), token]
    pages = [
        (await site.get(path)).text
        for path in ("", "jobs", f"jobs/{attacked}", "queues", "errors", "cron")
    ]
    pages.append((await site.post("/jobs/confirm", chosen, 200)).text)
    for text in pages:
        page = Reader(text)
        tags = {tag for tag, _ in page.elements}
        assert "img" not in tags
        assert sum(tag == "script" for tag, _ in page.elements) == 3
        assert not any(name.startswith("on") for _, given in page.elements for name in given)
        assert str(12345679 * 8) not in text
    assert ATTACK in Reader(pages[2]).text


async def test_markup_in_an_address_is_escaped(site: Site, attacked: int) -> None:
    parameters = ("q", "state", "queue", "before", "done", "n", "window")
    for path, parameter in product(("", "jobs", f"jobs/{attacked}"), parameters):
        response = await site.client.get(f"/{path}", params={parameter: ATTACK, "q": ATTACK})
        assert response.status_code in (200, 400)
        page = Reader(response.text)
        assert "img" not in {tag for tag, _ in page.elements}
        assert not any(name.startswith("on") for _, given in page.elements for name in given)


async def test_markup_that_a_mask_returns_is_escaped(open_site: Open, attacked: int) -> None:
    site = open_site(mask=lambda field, value, worker: {"masked": ATTACK})
    for path in ("jobs", f"jobs/{attacked}", "errors"):
        assert "img" not in {tag for tag, _ in (await site.read(path)).elements}


def test_json_keeps_markup_as_text() -> None:
    value = {"a": ['x"y: <b>', 10**30, None, True, 1.5e-9], "b": {}, "ü": "line\nbreak"}
    shown = Reader(str(pretty(value)))
    assert "".join(shown.words) == (
        '{\n  "a": [\n    "x\\"y: <b>",\n    1000000000000000000000000000000,\n    null,\n'
        '    true,\n    1.5e-09\n  ],\n  "b": {},\n  "ü": "line\\nbreak"\n}'
    )
    assert "more characters" in "".join(Reader(str(pretty("x" * 50_000))).words)
