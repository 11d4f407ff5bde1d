"""Installing the schema with no Alembic project: plain functions on a SQLAlchemy connection.

Like `MetaData.create_all()` they work in the connection's transaction, which is the caller's to
commit: `with engine.begin() as connection: upgrade(connection)`, and for an `AsyncConnection`
`await connection.run_sync(upgrade)`.
"""

from alembic.operations import Operations
from sqlalchemy import Connection

from . import version_table
from .args_index import CreateObanArgsIndexOp, DropObanArgsIndexOp
from .operations import DowngradeObanOp, UpgradeObanOp


def upgrade(
    connection: Connection, *, version: int | None = None, prefix: str | None = None
) -> list[int]:
    """Install the tables, or bring them up to `version`; jobs are kept.

    Does nothing when the database is there already. Processes that upgrade at once wait for each
    other. Tables that Oban for Python installed are adopted.

    Args:
        connection: the database; the caller commits.
        version: the version to reach; None: the latest that the library knows.
        prefix: the PostgreSQL schema for the tables, created when missing; None: the first of
            the search path.

    Returns: the versions that were applied, in order.

    Raises `SchemaVersionError` when the database has a version that the library doesn't know.
    """
    applied: list[int] = _operations(connection).invoke(UpgradeObanOp(version, prefix))
    return applied


def downgrade(connection: Connection, version: int, *, prefix: str | None = None) -> list[int]:
    """Bring the tables down to `version`; 0 drops them, and with them all jobs.

    Args:
        connection: the database; the caller commits.
        version: the version to reach; 0: none.
        prefix: the PostgreSQL schema of the tables; None: they are found on the search path.

    Returns: the versions that were undone, in order.

    Raises `SchemaVersionError` when the database has a version that the library doesn't know.
    """
    undone: list[int] = _operations(connection).invoke(DowngradeObanOp(version, prefix))
    return undone


def current(connection: Connection, *, prefix: str | None = None) -> int:
    """The version of the schema that the database has; 0 when it has none of our making."""
    return version_table.current(connection, prefix)


def create_args_index(
    connection: Connection, *, prefix: str | None = None, concurrently: bool = True
) -> None:
    """Make `Job.args_contain` fast, with a GIN index on the arguments of all jobs.

    Each insert and each claim of a job then writes about a third more. An index that is there
    stays; one that an interrupted build left invalid is built again.

    Args:
        connection: the database; it has begun no transaction, unless the index is built in one.
        prefix: the PostgreSQL schema of the tables; None: they are found on the search path.
        concurrently: build it while jobs are enqueued and run, outside of any transaction. False:
            in the caller's transaction, while writers wait.
    """
    _operations(connection).invoke(CreateObanArgsIndexOp(prefix, concurrently=concurrently))


def drop_args_index(
    connection: Connection, *, prefix: str | None = None, concurrently: bool = True
) -> None:
    """Drop what `create_args_index` made, if it is there; the arguments are the same."""
    _operations(connection).invoke(DropObanArgsIndexOp(prefix, concurrently=concurrently))


def _operations(connection: Connection) -> Operations:
    # Alembic loads its plugins, and so this package, while it is being imported itself.
    from alembic.runtime.migration import MigrationContext

    return Operations(MigrationContext.configure(connection))
