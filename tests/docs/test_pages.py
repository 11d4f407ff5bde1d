"""The pages of docs/ do what they say: the snippets of each run, one after the other."""

import ast
import re
import types
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from oban_sqla.migrations import upgrade

DOCS = Path(__file__).parents[2] / "docs"
TEXTS = {page.stem: page.read_text() for page in sorted(DOCS.glob("*.md"))}
PAGES = {stem: text for stem, text in TEXTS.items() if "```python" in text}


@pytest.mark.parametrize("page", PAGES)
async def test_the_snippets_run_as_written(
    page: str, database_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = make_url(database_dsn).set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    with engine.begin() as connection:
        upgrade(connection)
    engine.dispose()
    module = types.ModuleType(f"docs_{page}")
    for block in re.findall(r"^```python\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE):
        here = re.sub(
            r"postgresql\+psycopg://localhost/\w+", url.render_as_string(hide_password=False), block
        )
        code = compile(here, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if (coroutine := eval(code, module.__dict__)) is not None:
            await coroutine
    if (own := vars(module).get("engine")) and (closing := own.dispose()) is not None:
        await closing
    if page == "exactly_once":
        assert capsys.readouterr().out == "[90, 10]\n"
