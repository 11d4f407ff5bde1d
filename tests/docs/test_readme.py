"""The snippet of the README runs, and its links lead to files."""

import ast
import re
import sys
import types

import pytest
from sqlalchemy import create_engine, make_url, select
from sqlalchemy.orm import Session

from oban_sqla import Job, JobState
from oban_sqla.migrations import upgrade
from tests.docs.page import QUICKSTART, ROOT, snippets

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


async def test_the_snippet_runs_as_written(
    database_dsn: str,
    no_workers: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = make_url(database_dsn).set(drivername="postgresql+psycopg")
    shop = types.ModuleType("shop")
    (own,) = (one.code for one in snippets(QUICKSTART) if one.file == "shop.py")
    address = url.render_as_string(hide_password=False)
    await run(own.replace("postgresql+psycopg://localhost/shop", address), shop)
    monkeypatch.setitem(sys.modules, "shop", shop)
    engine = create_engine(url)
    with engine.begin() as connection:
        upgrade(connection)
        shop.Base.metadata.create_all(connection)

    module = types.ModuleType("readme")
    (block,) = blocks("python")
    await run(block, module)
    assert capsys.readouterr().out == "completed\n"
    with Session(engine) as session:
        assert session.scalars(select(shop.User.email)).all() == ["ann@shop.test"]
        assert session.scalars(select(Job.state)).all() == [JobState.COMPLETED]

    await shop.engine.dispose()
    engine.dispose()


async def run(block: str, module: types.ModuleType) -> None:
    code = compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if (coroutine := eval(code, module.__dict__)) is not None:
        await coroutine


def test_the_second_command_is_what_ci_runs() -> None:
    (command,) = (block.strip() for block in blocks("sh") if "pytest" in block)
    assert command in (ROOT / ".ci" / "run").read_text()


def test_the_first_command_runs_an_existing_example() -> None:
    (command,) = (block for block in blocks("sh") if "examples" in block)
    (module,) = re.findall(r"python -m (examples\.\w+)", command)
    assert (ROOT / module.replace(".", "/") / "__main__.py").is_file()


def test_the_links_lead_to_files() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []
