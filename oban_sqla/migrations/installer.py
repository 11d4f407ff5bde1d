"""Install the schema without an Alembic project: functions that take a SQLAlchemy connection.

Like `MetaData.create_all()`, they work in the connection's transaction, and the caller commits:
`with engine.begin() as connection: upgrade(connection)`. With an `AsyncConnection`:
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
    """Install the tables, or upgrade them to `version`; jobs are kept.

    Does nothing if the database has this version already. If a part of a version is missing, the
    version is applied again. Processes that upgrade at the same time wait for each other. Tables
    that Oban for Python installed are adopted.

    Args:
        connection: the database; the caller commits.
        version: the version to reach; None: the latest that the library knows.
        prefix: the PostgreSQL schema for the tables, created if it is missing; None: the first
            schema of the search path.
        wait: the most seconds to wait for transactions that use the tables. Jobs can be enqueued
            meanwhile, and the log names these transactions.

    Returns: the versions that were applied, in order.

    Raises `SchemaVersionError` if the database has a version that the library doesn't know, and
    `ObanError` if the wait was too short.
    """
    applied: list[int] = _operations(connection).invoke(UpgradeObanOp(version, prefix, wait=wait))
    return applied


def downgrade(
    connection: Connection, version: int, *, prefix: str | None = None, wait: float = WAIT
) -> list[int]:
    """Downgrade the tables to `version`; 0 drops them with all jobs.

    Args:
        connection: the database; the caller commits.
        version: the version to reach; 0: no tables.
        prefix: the PostgreSQL schema of the tables; None: they are found on the search path.
        wait: as for `upgrade`.

    Returns: the versions that were undone, in order.

    Raises `SchemaVersionError` if the database has a version that the library doesn't know, and
    `ObanError` if the wait was too short.
    """
    undone: list[int] = _operations(connection).invoke(DowngradeObanOp(version, prefix, wait=wait))
    return undone


def current(connection: Connection, *, prefix: str | None = None) -> int:
    """The version of the schema in the database; 0 if oban_sqla has not installed any.

    A recorded version counts only if all its parts exist.
    """
    return version_table.applied(connection, prefix)


def missing(connection: Connection, *, prefix: str | None = None) -> list[str]:
    """The missing parts of the recorded versions, such as `table oban_jobs`.

    Somebody dropped the parts, or another Oban dropped and created the tables. `upgrade` creates
    missing parts again.
    """
    return version_table.missing_from_recorded(connection, prefix)


def grant(
    connection: Connection,
    *,
    enqueue: Roles = (),
    run: Roles = (),
    read: Roles = (),
    prefix: str | None = None,
) -> None:
    """Grant roles the privileges on the tables that they need, and no others.

    Grant again after an upgrade, which may add tables.

    Args:
        connection: the database, as the owner of the tables; the caller commits.
        enqueue: roles that enqueue jobs, except unique jobs with `replace`.
        run: roles that run queues, manage jobs, or enqueue unique jobs with `replace`.
        read: roles that only read, such as the role of a dashboard, `status` or `doctor`.
        prefix: the PostgreSQL schema of the tables; None: they are found on the search path.
    """
    given = GrantObanOp(enqueue=enqueue, run=run, read=read, prefix=prefix)
    _operations(connection).invoke(given)


def create_args_index(
    connection: Connection, *, prefix: str | None = None, concurrently: bool = True
) -> None:
    """Make `Job.args_contain` fast, with a GIN index on the arguments of all jobs.

    With the index, each insert and each claim of a job writes about a third more. An existing
    index stays, but an invalid index of an interrupted build is built again.

    Args:
        connection: the database. If `concurrently`, it must have no open transaction.
        prefix: the PostgreSQL schema of the tables; None: they are found on the search path.
        concurrently: build the index while jobs are enqueued and run, outside of any transaction.
            False: build it in the caller's transaction, while writers wait.
    """
    _operations(connection).invoke(CreateObanArgsIndexOp(prefix, concurrently=concurrently))


def drop_args_index(
    connection: Connection, *, prefix: str | None = None, concurrently: bool = True
) -> None:
    """Drop the index that `create_args_index` made, if it exists; the arguments are the same."""
    _operations(connection).invoke(DropObanArgsIndexOp(prefix, concurrently=concurrently))


def _operations(connection: Connection) -> Operations:
    # Imported here, because Alembic loads this package as a plugin during its own import.
    from alembic.runtime.migration import MigrationContext

    return Operations(MigrationContext.configure(connection))
