"""`op.upgrade_oban()` and `op.downgrade_oban()`: our schema in a user's own Alembic history.

The other ways of installing go through the same two operations.
"""

from collections.abc import Callable

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import Connection

from ..errors import SchemaVersionError
from . import version_table
from .ddl import name
from .foreign import refuse_table_of_elixir
from .locks import WAIT, lock_out_other_migrations, lock_tables, no_long_waits
from .versions import LATEST, TABLES, VERSIONS


@Operations.register_operation("upgrade_oban")
class UpgradeObanOp(MigrateOperation):
    """Bring the schema of oban_sqla up to a version."""

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
        """The version that the database had when autogenerate looked."""
        self.wait = wait
        if self.version not in VERSIONS:
            raise ValueError(f"version must be from 1 to {LATEST}, got {version!r}")

    def reverse(self) -> "DowngradeObanOp":
        """What undoes it in a generated migration."""
        return DowngradeObanOp(self.installed, self.prefix)

    def to_diff_tuple(self) -> tuple[str, int, str | None]:
        """How `alembic check` shows it."""
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
        """Install the tables of oban_sqla, or bring them up to `version`; jobs are kept.

        Versions that are applied already, by whichever way, are left out; if a part of one is
        missing, it is applied again. Tables that Oban for Python installed are adopted. In offline
        mode all steps are written; they are idempotent.

        Args:
            version: the version to reach; None: the latest that the library knows. In a
                migration, name it: the migration should not change when the library does.
            prefix: the PostgreSQL schema for the tables, created when missing; None: the first
                of the search path.
            wait: how many seconds to wait at most for transactions that use the tables. Jobs can be
                enqueued meanwhile; a line of the log says who is waited for.

        Returns: the versions that were applied, in order.

        Raises `SchemaVersionError` when the database has a version that the library doesn't know,
        `ObanError` when the wait was too short.
        """
        applied: list[int] = operations.invoke(cls(version, prefix, wait=wait))
        return applied


@Operations.register_operation("downgrade_oban")
class DowngradeObanOp(MigrateOperation):
    """Bring the schema of oban_sqla down to a version."""

    def __init__(self, version: int = 0, prefix: str | None = None, *, wait: float = WAIT) -> None:
        self.version = version
        self.prefix = prefix
        self.wait = wait
        if version != 0 and version not in VERSIONS:
            raise ValueError(f"version must be from 0 to {LATEST}, got {version!r}")

    def reverse(self) -> UpgradeObanOp:
        """What undoes it in a generated migration."""
        return UpgradeObanOp(None, self.prefix, installed=self.version)

    def to_diff_tuple(self) -> tuple[str, int, str | None]:
        """How `alembic check` shows it."""
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
        """Bring the tables of oban_sqla down to `version`; 0 drops them, and with them all jobs.

        The PostgreSQL schema that holds them stays.

        Args:
            version: the version to reach; 0: none.
            prefix: the PostgreSQL schema of the tables; None: they are found on the search path.
            wait: as for `upgrade_oban`.

        Returns: the versions that were undone, in order.

        Raises `SchemaVersionError` when the database has a version that the library doesn't know,
        `ObanError` when the wait was too short.
        """
        undone: list[int] = operations.invoke(cls(version, prefix, wait=wait))
        return undone


@Operations.implementation_for(UpgradeObanOp)
def _upgrade(op: Operations, operation: UpgradeObanOp) -> list[int]:
    prefix = operation.prefix
    lock_out_other_migrations(op, operation.wait)
    refuse_table_of_elixir(op, prefix)
    installed = 0 if op.get_context().as_sql else _known(op, prefix, version_table.current)
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
    prefix = operation.prefix
    lock_out_other_migrations(op, operation.wait)
    # What is recorded, though it is incomplete: each step drops what is there.
    installed = LATEST if op.get_context().as_sql else _known(op, prefix, version_table.recorded)
    versions = list(range(installed, operation.version, -1))
    if versions:
        lock_tables(op, [name(table, prefix) for table in TABLES], operation.wait)
    with no_long_waits(op):
        for version in versions:
            version_table.remove(op, version, prefix)
            VERSIONS[version].downgrade(op, prefix)
    return versions


def _known(op: Operations, prefix: str | None, ask: Callable[[Connection, str | None], int]) -> int:
    connection = op.get_bind()
    recorded = version_table.recorded(connection, prefix)
    if recorded > LATEST:
        raise SchemaVersionError(
            f"the database has version {recorded} of the schema, and this oban_sqla knows"
            f" versions up to {LATEST}: install a newer oban_sqla"
        )
    return ask(connection, prefix)
