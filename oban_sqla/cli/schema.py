"""`oban-sqla schema`: install the tables without an Alembic project."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from sqlalchemy import Connection

from ..migrations import (
    LATEST,
    create_args_index,
    current,
    downgrade,
    drop_args_index,
    grant,
    missing,
    upgrade,
)
from ..migrations.database import engine_for
from ..migrations.locks import WAIT
from .configuration import configured, dsn_of, location, name_database
from .failures import fail, told_in_one_line
from .options import Config, Dsn, Prefix, Yes

Wait = Annotated[
    float,
    typer.Option(min=0, help="Seconds to wait for transactions that use the tables."),
]

app = typer.Typer(
    help="Install or upgrade the tables without an Alembic project.", no_args_is_help=True
)


@app.command("upgrade")
def upgrade_schema(
    dsn: Dsn = None,
    prefix: Prefix = None,
    version: Annotated[int, typer.Option(min=1, max=LATEST, help="The version to reach.")] = LATEST,
    wait: Wait = WAIT,
    path: Config = None,
) -> None:
    """Install the tables, upgrade them, or repair them. Jobs are kept."""
    with _connected(dsn, prefix, path, changes=True) as (connection, prefix):
        applied = upgrade(connection, version=version, prefix=prefix, wait=wait)
        now = current(connection, prefix=prefix)
    if applied:
        typer.echo(f"The schema is now at version {now}.")
    else:
        typer.echo(f"The schema is at version {now} already: nothing to do.")


@app.command("downgrade")
def downgrade_schema(
    dsn: Dsn = None,
    prefix: Prefix = None,
    version: Annotated[
        int, typer.Option(min=0, max=LATEST, help="The version to reach; 0 drops everything.")
    ] = 0,
    yes: Yes = False,
    wait: Wait = WAIT,
    path: Config = None,
) -> None:
    """Downgrade the tables, or drop them with all jobs."""
    with _connected(dsn, prefix, path, changes=True) as (connection, prefix):
        installed = current(connection, prefix=prefix)
        # A version with a missing part is not installed, but its other parts must be dropped, too.
        if installed <= version and not missing(connection, prefix=prefix):
            typer.echo(f"{_at(installed)}: nothing to do.")
            return
        if not yes and not typer.confirm(_question(connection, version, prefix)):
            fail("nothing was changed")
        downgrade(connection, version, prefix=prefix, wait=wait)
    typer.echo(f"{_at(version)} now.")


@app.command("current")
def current_schema(dsn: Dsn = None, prefix: Prefix = None, path: Config = None) -> None:
    """Show the version of the tables."""
    with _connected(dsn, prefix, path) as (connection, prefix):
        installed = current(connection, prefix=prefix)
        lost = missing(connection, prefix=prefix)
    if lost:
        hint = f"{', '.join(lost)} is missing: `oban-sqla schema upgrade` creates it again"
    elif installed == LATEST:
        hint = "the latest"
    elif installed < LATEST:
        hint = f"`oban-sqla schema upgrade` upgrades it to version {LATEST}"
    else:
        hint = f"this oban-sqla knows versions up to {LATEST}: install a newer one"
    typer.echo(f"{_at(installed)}: {hint}.")


@app.command("args-index")
def args_index(
    dsn: Dsn = None,
    prefix: Prefix = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the index.")] = False,
    path: Config = None,
) -> None:
    """Create the index for Job.args_contain. Jobs are enqueued and run meanwhile."""
    with _connected(dsn, prefix, path, changes=True) as (connection, prefix):
        change = drop_args_index if drop else create_args_index
        change(connection, prefix=prefix)
    typer.echo(f"The index on the arguments of jobs is {'dropped' if drop else 'ready'}.")


@app.command("grant")
def grant_privileges(
    dsn: Dsn = None,
    prefix: Prefix = None,
    enqueue: Annotated[
        list[str] | None, typer.Option(help="A role that enqueues jobs; may be repeated.")
    ] = None,
    run: Annotated[
        list[str] | None, typer.Option(help="A role that runs and manages jobs; may be repeated.")
    ] = None,
    read: Annotated[
        list[str] | None, typer.Option(help="A role that only reads; may be repeated.")
    ] = None,
    path: Config = None,
) -> None:
    """Grant roles the least privileges that they need."""
    roles = {"enqueue": enqueue or [], "run": run or [], "read": read or []}
    if not any(roles.values()):
        fail("no role was named: give --enqueue, --run or --read")
    with _connected(dsn, prefix, path, changes=True) as (connection, prefix):
        grant(connection, **roles, prefix=prefix)
    for right, names in roles.items():
        if names:
            typer.echo(f"May {right} jobs: {', '.join(names)}.")


@contextmanager
def _connected(
    dsn: str | None, prefix: str | None, path: str | None, *, changes: bool = False
) -> Iterator[tuple[Connection, str | None]]:
    """Connect to the database of the settings, and give the connection and the schema."""
    settings = configured(path, dsn=dsn, prefix=prefix)
    with told_in_one_line(), engine_for(dsn_of(settings)).connect() as connection:
        if changes:
            name_database(settings)
        yield connection, settings.config.prefix
        connection.commit()


def _at(version: int) -> str:
    return f"The schema is at version {version}" if version else "The schema is not installed"


def _question(connection: Connection, version: int, prefix: str | None) -> str:
    where = location(connection.engine.url)
    if prefix is not None:
        where = f"schema {prefix!r} of {where}"
    if version == 0:
        return f"This drops all jobs, with their tables, in {where}. Go on?"
    return f"This downgrades the tables in {where} to version {version}. Go on?"
