"""Installing the schema with no Alembic project: plain functions on a SQLAlchemy connection.

Like `MetaData.create_all()` they work in the connection's transaction, which is the caller's to
commit: `with engine.begin() as connection: upgrade(connection)`, and for an `AsyncConnection`
`await connection.run_sync(upgrade)`.
"""

from alembic.operations import Operations
from sqlalchemy import Connection

from . import version_table
from .args_index import CreateObanArgsIndexOp, DropObanArgsIndexOp
from .grants import GrantObanOp, Roles
from .locks import WAIT
from .operations import DowngradeObanOp, UpgradeObanOp


def upgrade(
    connection: Connection,
    *,
    version: int | None = None,
    prefix: str | None = None,
    wait: float = WAIT,
) -> list[int]:
    """Install the tables, or bring them up to `version`; jobs are kept.

    Does nothing when the database is there already; if a part of a version is missing, the version
    is applied again. Processes that upgrade at once wait for each other. Tables that Oban for
    Python installed are adopted.

    Args:
        connection: the database; the caller commits.
        version: the version to reach; None: the latest that the library knows.
        prefix: the PostgreSQL schema for the tables, created when missing; None: the first of
            the search path.
        wait: how many seconds to wait at most for transactions that use the tables. Jobs can be
            enqueued meanwhile; a line of the log says who is waited for.

    Returns: the versions that were applied, in order.

    Raises `SchemaVersionError` when the database has a version that the library doesn't know,
    `ObanError` when the wait was too short.
    """
    applied: list[int] = _operations(connection).invoke(UpgradeObanOp(version, prefix, wait=wait))
    return applied


def downgrade(
    connection: Connection, version: int, *, prefix: str | None = None, wait: float = WAIT
) -> list[int]:
    """Bring the tables down to `version`; 0 drops them, and with them all jobs.

    Args:
        connection: the database; the caller commits.
        version: the version to reach; 0: none.
        prefix: the PostgreSQL schema of the tables; None: they are found on the search path.
        wait: as for `upgrade`.

    Returns: the versions that were undone, in order.

    Raises `SchemaVersionError` when the database has a version that the library doesn't know,
    `ObanError` when the wait was too short.
    """
    undone: list[int] = _operations(connection).invoke(DowngradeObanOp(version, prefix, wait=wait))
    return undone


def current(connection: Connection, *, prefix: str | None = None) -> int:
    """The version of the schema that the database has; 0 when it has none of our making.

    A version counts if every part of it is there, whatever was recorded.
    """
    return version_table.current(connection, prefix)


def missing(connection: Connection, *, prefix: str | None = None) -> list[str]:
    """The parts of the recorded versions that are not there, such as `table oban_jobs`.

    Someone dropped them, or another Oban dropped the tables and made them anew. `upgrade` mends
    it.
    """
    return version_table.missing(connection, prefix)


def grant(
    connection: Connection,
    *,
    enqueue: Roles = (),
    run: Roles = (),
    read: Roles = (),
    prefix: str | None = None,
) -> None:
    """Grant roles what they need on the tables, and no more.

    Tables that a later version of the schema adds are not among them: grant again after an
    upgrade.

    Args:
        connection: the database, as the owner of the tables; the caller commits.
        enqueue: roles that enqueue jobs, unique ones too, unless these replace others.
        run: roles that run queues, manage jobs, or enqueue unique jobs that replace others.
        read: roles that look only, such as those of a dashboard, `status` and `doctor`.
        prefix: the PostgreSQL schema of the tables; None: they are found on the search path.
    """
    given = GrantObanOp(enqueue=enqueue, run=run, read=read, prefix=prefix)
    _operations(connection).invoke(given)


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
