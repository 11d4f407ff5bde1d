"""Read the settings of a command, and connect to the database that they name."""

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
    """Read the settings. Options override all other sources. All mistakes are printed."""
    given = {name: value for name, value in options.items() if value is not None}
    with told_in_one_line():
        return load(path, origin=ORIGIN, **given)


def missing(name: str, option: str, example: str, more: str = "") -> typer.BadParameter:
    """The error for a missing setting. Its message says how to set it."""
    return typer.BadParameter(
        f"name the {NOUNS.get(name, name)} with {option} or OBAN_{name.upper()},"
        f" or in oban.toml or [tool.oban] as {name} = {example}{more}"
    )


def database_of(settings: Settings) -> Database:
    """The database that the settings name; `typer.BadParameter` if they name none."""
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


def location(url: URL) -> str:
    """The database and host of a URL as text, without the user and password."""
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
    warn(f"{location(url)}, named by {found[0].name} ({found[0].source})")


def ask(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run a coroutine function with the database, and return its result."""

    async def run(database: Database) -> T:
        try:
            return await work(database)
        finally:
            # Also for the user's own engine, since this event loop ends here.
            await database.engine.dispose()

    with told_in_one_line():
        return asyncio.run(run(database_of(settings)))
