"""`op.upgrade_oban()` and `op.downgrade_oban()`: our schema in a user's own Alembic history.

All other ways to install the schema use these two operations.
"""

from collections.abc import Callable

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import Connection, quoted_name

from ..errors import SchemaVersionError
from . import version_table
from .ddl import name
from .foreign import refuse_table_of_elixir
from .locks import WAIT, lock_out_other_migrations, lock_tables, no_long_waits
from .versions import LATEST, TABLES, VERSIONS


@Operations.register_operation("upgrade_oban")
class UpgradeObanOp(MigrateOperation):
    """Upgrade the schema of oban_sqla to a version."""

    def __init__(
        self,
        version: int | None = None,
        prefix: str | None = None,
        *,
        installed: int = 0,
        wait: float = WAIT,
    ) -> None:
        self.version = LATEST if version is None else version
        self.prefix = prefix
        self.installed = installed
        """The version that autogenerate found in the database."""
        self.wait = wait
        if self.version not in VERSIONS:
            raise ValueError(f"version must be from 1 to {LATEST}, got {version!r}")

    def reverse(self) -> "DowngradeObanOp":
        """The operation for the downgrade of a generated migration."""
        return DowngradeObanOp(self.installed, self.prefix)

    def to_diff_tuple(self) -> tuple[str, int, str | None]:
        """The operation as `alembic check` shows it."""
        return ("upgrade_oban", self.version, self.prefix)

    @classmethod
    def upgrade_oban(
        cls,
        operations: Operations,
        version: int | None = None,
        prefix: str | None = None,
        *,
        wait: float = WAIT,
    ) -> list[int]:
        """Install the tables of oban_sqla, or upgrade them to `version`; jobs are kept.

        Applied versions are skipped, however they were applied. If a part of a version is missing,
        the version is applied again. Tables that Oban for Python installed are adopted. Offline
        mode writes all steps, which are idempotent.

        Args:
            version: the version to reach; None: the latest that the library knows. Name a version
                in a migration, so that the migration does not change with the library.
            prefix: the PostgreSQL schema for the tables, created if it is missing; None: the
                first schema of the search path.
            wait: the most seconds to wait for transactions that use the tables. Jobs can be
                enqueued meanwhile, and the log names these transactions.

        Returns: the versions that were applied, in order.

        Raises `SchemaVersionError` if the database has a version that the library doesn't know, and
        `ObanError` if the wait was too short.
        """
        applied: list[int] = operations.invoke(cls(version, prefix, wait=wait))
        return applied


@Operations.register_operation("downgrade_oban")
class DowngradeObanOp(MigrateOperation):
    """Downgrade the schema of oban_sqla to a version."""

    def __init__(self, version: int = 0, prefix: str | None = None, *, wait: float = WAIT) -> None:
        self.version = version
        self.prefix = prefix
        self.wait = wait
        if version != 0 and version not in VERSIONS:
            raise ValueError(f"version must be from 0 to {LATEST}, got {version!r}")

    def reverse(self) -> UpgradeObanOp:
        """The operation for the opposite direction of a generated migration."""
        return UpgradeObanOp(None, self.prefix, installed=self.version)

    def to_diff_tuple(self) -> tuple[str, int, str | None]:
        """The operation as `alembic check` shows it."""
        return ("downgrade_oban", self.version, self.prefix)

    @classmethod
    def downgrade_oban(
        cls,
        operations: Operations,
        version: int = 0,
        prefix: str | None = None,
        *,
        wait: float = WAIT,
    ) -> list[int]:
        """Downgrade the tables of oban_sqla to `version`; 0 drops them with all jobs.

        The PostgreSQL schema that contained them stays.

        Args:
            version: the version to reach; 0: no tables.
            prefix: the PostgreSQL schema of the tables; None: they are found on the search path.
            wait: as for `upgrade_oban`.

        Returns: the versions that were undone, in order.

        Raises `SchemaVersionError` if the database has a version that the library doesn't know, and
        `ObanError` if the wait was too short.
        """
        undone: list[int] = operations.invoke(cls(version, prefix, wait=wait))
        return undone


@Operations.implementation_for(UpgradeObanOp)
def _upgrade(op: Operations, operation: UpgradeObanOp) -> list[int]:
    prefix = _whole_name(operation.prefix)
    lock_out_other_migrations(op, operation.wait)
    refuse_table_of_elixir(op, prefix)
    installed = 0 if op.get_context().as_sql else _known(op, prefix, version_table.applied)
    versions = list(range(installed + 1, operation.version + 1))
    if versions:
        lock_tables(op, [name(table, prefix) for table in TABLES], operation.wait)
    with no_long_waits(op):
        for version in versions:
            VERSIONS[version].upgrade(op, prefix)
            version_table.add(op, version, prefix)
    return versions


@Operations.implementation_for(DowngradeObanOp)
def _downgrade(op: Operations, operation: DowngradeObanOp) -> list[int]:
    prefix = _whole_name(operation.prefix)
    lock_out_other_migrations(op, operation.wait)
    # The recorded version, even if it is incomplete: each step drops the parts that exist.
    installed = LATEST if op.get_context().as_sql else _known(op, prefix, version_table.recorded)
    versions = list(range(installed, operation.version, -1))
    if versions:
        lock_tables(op, [name(table, prefix) for table in TABLES], operation.wait)
    with no_long_waits(op):
        for version in versions:
            version_table.remove(op, version, prefix)
            VERSIONS[version].downgrade(op, prefix)
    return versions


def _whole_name(prefix: str | None) -> str | None:
    # Alembic takes the part before a dot for the name of a database.
    return None if prefix is None else quoted_name(prefix, None)


def _known(op: Operations, prefix: str | None, ask: Callable[[Connection, str | None], int]) -> int:
    connection = op.get_bind()
    recorded = version_table.recorded(connection, prefix)
    if recorded > LATEST:
        raise SchemaVersionError(
            f"the database has version {recorded} of the schema, but this oban_sqla only knows"
            f" versions up to {LATEST}: install a newer oban_sqla"
        )
    return ask(connection, prefix)
