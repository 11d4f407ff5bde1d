"""What a command works with: its options, the environment, the file, and the database of these."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import typer
from sqlalchemy import URL

from ..dsn import database_url
from ..runtime.database import Database
from ..settings import DATABASES, DEFAULT, Settings, load
from .failures import told_in_one_line, warn
from .modules import import_from_here
from .output import plain

T = TypeVar("T")

ORIGIN = "command line"
NOUNS = {"dsn": "database", "imports": "modules with workers"}


def configured(path: str | None, **options: Any) -> Settings:
    """Read the settings; the given options count most. Every mistake is reported."""
    given = {name: value for name, value in options.items() if value is not None}
    with told_in_one_line():
        return load(path, origin=ORIGIN, **given)


def missing(name: str, option: str, example: str, more: str = "") -> typer.BadParameter:
    """What to raise for a setting that no source has: it says where it can be put."""
    return typer.BadParameter(
        f"name the {NOUNS.get(name, name)} with {option} or OBAN_{name.upper()},"
        f" or in oban.toml or [tool.oban] as {name} = {example}{more}"
    )


def database_of(settings: Settings) -> Database:
    """The database that the settings name; a command is useless without one."""
    import_from_here()
    named = settings.database()
    if named is None:
        raise missing("dsn", "--dsn", '"postgresql://..."')
    return Database(named, settings.config.prefix)


def dsn_of(settings: Settings) -> str:
    """The DSN of the database that the settings name."""
    if settings.dsn is not None:
        return settings.dsn
    with told_in_one_line():
        url = database_of(settings).engine.url
    return url.render_as_string(hide_password=False)


def place(url: URL) -> str:
    """Which database a URL names, without its user and password."""
    host = url.host or url.query.get("host") or "localhost"
    hosts = host if isinstance(host, str) else ", ".join(host)
    port = "" if url.port is None else f":{url.port}"
    return plain(f"database {url.database or '(default)'} on {hosts}{port}")


def name_database(settings: Settings) -> None:
    """Say on stderr which database a command changes, and which setting names it."""
    with told_in_one_line():
        url = database_url(settings.dsn) if settings.dsn else database_of(settings).engine.url
    names = (*DATABASES, "session")
    found = [settings.found[one] for one in names if settings.found[one].source != DEFAULT]
    warn(f"{place(url)}, named by {found[0].name} ({found[0].source})")


def ask(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """What a coroutine finds in the database."""

    async def run(database: Database) -> T:
        try:
            return await work(database)
        finally:
            # An engine of the user's, too: this event loop ends here.
            await database.engine.dispose()

    with told_in_one_line():
        return asyncio.run(run(database_of(settings)))
