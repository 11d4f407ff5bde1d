"""The snippets of the pages in docs/ run, one after the other, and print what the pages say."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sentry_sdk
from sqlalchemy import create_engine, make_url
from typer.main import get_command

from oban_sqla.cli.app import app
from oban_sqla.contrib import opentelemetry, prometheus, sentry
from oban_sqla.migrations import upgrade
from tests.docs.page import DOCS, Page, snippets
from tests.forked import Python

NAMES = [page.relative_to(DOCS).with_suffix("").as_posix() for page in sorted(DOCS.rglob("*.md"))]
PAGES = [name for name in NAMES if any(snippets(name))]
# Pages that install the tables themselves.
EMPTY = ("quickstart", "alembic")
# Pages with jobs that are discarded, which is logged.
FAILING = ("errors_and_retries", "troubleshooting")


@pytest.fixture(autouse=True)
def untold() -> Iterator[None]:
    """Detach the telemetry that a page attaches."""
    yield
    for contrib in (opentelemetry, prometheus, sentry):
        contrib.detach()
    sentry_sdk.get_global_scope().set_client(None)


@pytest.mark.parametrize("name", PAGES)
async def test_the_snippets_run_as_written(
    name: str,
    database_dsn: str,
    tmp_path: Path,
    no_workers: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    python: Python,
) -> None:
    for variable in [key for key in os.environ if key.startswith("OBAN_")]:
        monkeypatch.delenv(variable)
    for variable in ("OBAN_DSN", "OBAN_QUEUES"):
        # So that the variable is removed if the page exports it.
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if name not in EMPTY:
        engine = create_engine(make_url(database_dsn).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            upgrade(connection)
        engine.dispose()
    await Page(name, tmp_path, database_dsn, capsys, python).run()
    if name in FAILING:
        caplog.clear()


def test_the_commands_in_units_and_images_exist() -> None:
    """Commands of units, images and pods are not run, but their options are checked."""
    lines = []
    for name in NAMES:
        text = (DOCS / f"{name}.md").read_text()
        for block in re.findall(r"^```(?:systemd|dockerfile|yaml)\n(.*?)^```", text, re.S | re.M):
            lines += re.findall(r"oban-sqla\W+(start\W.*)", block)
    assert lines
    group = get_command(app)
    for line in lines:
        name, *arguments = re.findall(r"[\w-][\w./:,=-]*", line)
        group.commands[name].make_context(name, arguments)
