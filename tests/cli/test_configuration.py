"""The database that a command uses, and the line about it before a change."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from oban_sqla.cli.configuration import location
from tests.cli.conftest import Say

CHANGES = [
    ("jobs", "retry", "--all", "--yes"),
    ("jobs", "cancel", "--all", "--yes"),
    ("jobs", "delete", "--all", "--yes"),
    ("queues", "pause", "default"),
    ("queues", "start", "default", "5"),
    ("schema", "upgrade"),
]


@pytest.mark.parametrize("command", CHANGES)
def test_a_command_that_changes_something_names_its_database(
    call: Say,
    postgres_dsn: str,
    prefix: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    (here / "oban.toml").write_text(f"dsn = 'postgresql://u:secret@other/b'\nprefix = '{prefix}'\n")
    dsn = make_url(postgres_dsn).set(username="postgres", password="secret")
    monkeypatch.setenv("OBAN_DSN", dsn.render_as_string(hide_password=False))
    done = call(*command)
    assert f"{location(dsn)}, named by dsn (OBAN_DSN)" in done.stderr
    assert "secret" not in done.output


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:secret@db.test:6432/shop", "database shop on db.test:6432"),
        ("postgresql://u:secret@/shop", "database shop on localhost"),
        ("postgresql:///shop?host=/run/pg&password=secret", "database shop on /run/pg"),
        ("postgresql://a/?host=b", "database (default) on a"),
    ],
)
def test_the_name_of_a_database_shows_no_password(url: str, said: str) -> None:
    assert location(make_url(url)) == said


@pytest.mark.parametrize("setting", ["engine", "session"])
def test_a_command_works_with_an_engine_of_the_user(
    call: Say, postgres_dsn: str, prefix: str, here: Path, setting: str
) -> None:
    (here / f"with_{setting}.py").write_text(
        f"""
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

url = make_url({postgres_dsn!r}).set(drivername="postgresql+psycopg")
schemas = {{"schema_translate_map": {{None: {prefix!r}}}}}
engine = create_async_engine(url, execution_options=schemas)
session = async_sessionmaker(engine)
"""
    )
    (here / "oban.toml").write_text(f"{setting} = 'with_{setting}:{setting}'\n")
    assert call("jobs", "list").stdout == "no jobs\n"
    done = call("jobs", "delete", "--all", "--yes")
    assert f"named by {setting} ({here}/oban.toml)" in done.stderr
    assert "the latest" in call("schema", "current", "--prefix", prefix).stdout


def test_an_import_path_without_an_object_is_refused(call: Say, here: Path) -> None:
    (here / "oban.toml").write_text("engine = 'no_shop:engine'\n")
    told = call("jobs", "list", code=1).stderr
    assert told == (
        f"oban-sqla: {here}/oban.toml: engine: can't import 'no_shop:engine':"
        " No module named 'no_shop'\n"
    )
