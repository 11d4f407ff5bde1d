"""`oban-sqla schema`: installing the tables where no Alembic project does it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from sqlalchemy import Connection

from ..migrations import LATEST, current, downgrade, upgrade
from ..migrations.database import engine_for
from .failures import fail, told_in_one_line

Dsn = Annotated[
    str,
    typer.Option(
        envvar="OBAN_DSN", metavar="URL", help="The database: postgresql://user:password@host/name"
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option(metavar="SCHEMA", help="The PostgreSQL schema of the tables, if not the default."),
]

app = typer.Typer(
    help="Install the tables, without an Alembic project of your own.", no_args_is_help=True
)


@app.command("upgrade")
def upgrade_schema(
    dsn: Dsn,
    prefix: Prefix = None,
    version: Annotated[int, typer.Option(min=1, max=LATEST, help="The version to reach.")] = LATEST,
) -> None:
    """Install the tables, or bring them up to date. Jobs are kept."""
    with _connected(dsn) as connection:
        applied = upgrade(connection, version=version, prefix=prefix)
        now = current(connection, prefix=prefix)
    if applied:
        typer.echo(f"The schema is now at version {now}.")
    else:
        typer.echo(f"The schema is at version {now} already: nothing to do.")


@app.command("downgrade")
def downgrade_schema(
    dsn: Dsn,
    prefix: Prefix = None,
    version: Annotated[
        int, typer.Option(min=0, max=LATEST, help="The version to reach; 0 drops everything.")
    ] = 0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Take the tables back to an older version, or drop them with all jobs."""
    with _connected(dsn) as connection:
        installed = current(connection, prefix=prefix)
        if installed <= version:
            typer.echo(f"{_at(installed)}: nothing to do.")
            return
        if not yes and not typer.confirm(_question(connection, version, prefix)):
            fail("nothing was changed")
        downgrade(connection, version, prefix=prefix)
    typer.echo(f"{_at(version)} now.")


@app.command("current")
def current_schema(dsn: Dsn, prefix: Prefix = None) -> None:
    """Say which version of the tables the database has."""
    with _connected(dsn) as connection:
        installed = current(connection, prefix=prefix)
    if installed == LATEST:
        hint = "the latest"
    elif installed < LATEST:
        hint = f"`oban-sqla schema upgrade` brings it to version {LATEST}"
    else:
        hint = f"this oban-sqla knows versions up to {LATEST}: install a newer one"
    typer.echo(f"{_at(installed)}: {hint}.")


@contextmanager
def _connected(dsn: str) -> Iterator[Connection]:
    with told_in_one_line(), engine_for(dsn).begin() as connection:
        yield connection


def _at(version: int) -> str:
    return f"The schema is at version {version}" if version else "The schema is not installed"


def _question(connection: Connection, version: int, prefix: str | None) -> str:
    where = f"database {connection.engine.url.database!r}"
    if prefix is not None:
        where = f"schema {prefix!r} of {where}"
    if version == 0:
        return f"This drops all jobs, with their tables, in {where}. Go on?"
    return f"This takes the tables in {where} back to version {version}. Go on?"
