"""What a command works with: its options, the file, the environment, and the database of these."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import typer

from ..runtime.database import Database
from ..settings import Settings, load
from .failures import told_in_one_line

T = TypeVar("T")

ORIGIN = "command line"
NOUNS = {"dsn": "database", "imports": "modules with workers"}


def configured(path: str | None, **options: Any) -> Settings:
    """The settings, of which the options that were given count most; all that is wrong is told."""
    given = {name: value for name, value in options.items() if value is not None}
    with told_in_one_line():
        return load(path, origin=ORIGIN, **given)


def missing(name: str, option: str, example: str, more: str = "") -> typer.BadParameter:
    """What to raise for a setting that no source has: it says where it can be put."""
    return typer.BadParameter(
        f"name the {NOUNS.get(name, name)} with {option} or OBAN_{name.upper()},"
        f" or in oban.toml or [tool.oban] as {name} = {example}{more}"
    )


def dsn_of(settings: Settings) -> str:
    """The database that the settings name, without which a command has no use."""
    if settings.dsn is None:
        raise missing("dsn", "--dsn", '"postgresql://..."')
    return settings.dsn


def ask(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """What a coroutine finds in the database."""
    dsn = dsn_of(settings)

    async def run() -> T:
        database = Database(dsn, settings.config.prefix)
        try:
            return await work(database)
        finally:
            await database.dispose()

    with told_in_one_line():
        return asyncio.run(run())
