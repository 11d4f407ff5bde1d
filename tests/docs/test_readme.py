"""The README does what it says: its snippets run, one after the other."""

import ast
import re
import shlex
import sys
import types
from functools import partial
from pathlib import Path

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, make_url, select
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from oban_sqla import Job, JobState
from oban_sqla.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


async def test_the_tour_runs_as_written(
    database_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = types.ModuleType("shop")
    exec("import asyncio", shop.__dict__)
    migration, *tour = blocks("python")
    await run(migration, shop)
    url = make_url(database_dsn).set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    with (
        engine.begin() as connection,
        Operations.context(MigrationContext.configure(connection)),
    ):
        shop.upgrade()
    for block in tour:
        await run(
            block.replace(
                "postgresql+psycopg://localhost/shop", url.render_as_string(hide_password=False)
            ),
            shop,
        )
        if "class Base" in block:
            shop.Base.metadata.create_all(engine)
    async with shop.Session() as session:
        jobs = (await session.scalars(select(Job).order_by(Job.id))).all()
    await shop.engine.dispose()
    engine.dispose()
    states = [job.state for job in jobs]
    assert states.count(JobState.COMPLETED) == 4
    assert states.count(JobState.CANCELLED) == 1
    printed = capsys.readouterr().out
    assert "2026-11, with details" in printed
    assert "{'sent_to': 'ann@shop.test'}" in printed


async def run(block: str, module: types.ModuleType) -> None:
    code = compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if (coroutine := eval(code, module.__dict__)) is not None:
        await coroutine


def test_the_second_command_is_what_ci_runs() -> None:
    (command,) = (block.strip() for block in blocks("sh") if "pytest" in block)
    assert command in (ROOT / ".ci" / "run").read_text()


def test_the_commands_for_operating_run_as_written(
    database_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings,) = blocks("toml")
    (tmp_path / "oban.toml").write_text(
        settings.replace("postgresql://localhost/shop", database_dsn)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "shop", types.ModuleType("shop"))
    invoke = partial(CliRunner().invoke, app)
    assert invoke(["schema", "upgrade"]).exit_code == 0
    engine = create_engine(make_url(database_dsn).set(drivername="postgresql+psycopg"))
    with Session(engine) as session, session.begin():
        session.add(Job("shop.WelcomeEmail", {"email": "ann@shop.test"}, queue="mailers"))
    engine.dispose()
    (commands,) = (block for block in blocks("sh") if "oban-sqla status" in block)
    for line in commands.splitlines():
        _, *arguments = shlex.split(line, comments=True)
        done = invoke(arguments)
        # No node runs the job.
        assert done.exit_code == (arguments == ["doctor"]), (line, done.output)
