"""`op.upgrade_oban()` and `op.downgrade_oban()`: our schema in a user's own Alembic history.

The other ways of installing go through the same two operations.
"""

from alembic.operations import MigrateOperation, Operations

from ..errors import SchemaVersionError
from . import version_table
from .ddl import execute, lock, name
from .versions import LATEST, VERSIONS

# Any number will do, if nobody else takes it: this is "oban" in ASCII.
_LOCK = 0x6F62616E


@Operations.register_operation("upgrade_oban")
class UpgradeObanOp(MigrateOperation):
    """Bring the schema of oban_sqla up to a version."""

    def __init__(
        self, version: int | None = None, prefix: str | None = None, *, installed: int = 0
    ) -> None:
        self.version = LATEST if version is None else version
        self.prefix = prefix
        self.installed = installed
        """The version that the database had when autogenerate looked."""
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
        cls, operations: Operations, version: int | None = None, prefix: str | None = None
    ) -> list[int]:
        """Install the tables of oban_sqla, or bring them up to `version`; jobs are kept.

        Versions that are applied already, by whichever way, are left out. Tables that Oban for
        Python installed are adopted. In offline mode all steps are written; they are idempotent.

        Args:
            version: the version to reach; None: the latest that the library knows. In a
                migration, name it: the migration should not change when the library does.
            prefix: the PostgreSQL schema for the tables, created when missing; None: the first
                of the search path.

        Returns: the versions that were applied, in order.

        Raises `SchemaVersionError` when the database has a version that the library doesn't know.
        """
        applied: list[int] = operations.invoke(cls(version, prefix))
        return applied


@Operations.register_operation("downgrade_oban")
class DowngradeObanOp(MigrateOperation):
    """Bring the schema of oban_sqla down to a version."""

    def __init__(self, version: int = 0, prefix: str | None = None) -> None:
        self.version = version
        self.prefix = prefix
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
        cls, operations: Operations, version: int = 0, prefix: str | None = None
    ) -> list[int]:
        """Bring the tables of oban_sqla down to `version`; 0 drops them, and with them all jobs.

        The PostgreSQL schema that holds them stays.

        Args:
            version: the version to reach; 0: none.
            prefix: the PostgreSQL schema of the tables; None: they are found on the search path.

        Returns: the versions that were undone, in order.

        Raises `SchemaVersionError` when the database has a version that the library doesn't know.
        """
        undone: list[int] = operations.invoke(cls(version, prefix))
        return undone


@Operations.implementation_for(UpgradeObanOp)
def _upgrade(op: Operations, operation: UpgradeObanOp) -> list[int]:
    _wait_for_others(op)
    installed = 0 if op.get_context().as_sql else _installed(op, operation.prefix)
    versions = list(range(installed + 1, operation.version + 1))
    if versions:
        lock(op, name("oban_jobs", operation.prefix))
    for version in versions:
        VERSIONS[version].upgrade(op, operation.prefix)
        version_table.add(op, version, operation.prefix)
    return versions


@Operations.implementation_for(DowngradeObanOp)
def _downgrade(op: Operations, operation: DowngradeObanOp) -> list[int]:
    _wait_for_others(op)
    installed = LATEST if op.get_context().as_sql else _installed(op, operation.prefix)
    versions = list(range(installed, operation.version, -1))
    for version in versions:
        version_table.remove(op, version, operation.prefix)
        VERSIONS[version].downgrade(op, operation.prefix)
    return versions


def _wait_for_others(op: Operations) -> None:
    # "IF NOT EXISTS" is no protection: two that create the same table at once still collide.
    execute(op, f"SELECT pg_advisory_xact_lock({_LOCK})")


def _installed(op: Operations, prefix: str | None) -> int:
    installed = version_table.current(op.get_bind(), prefix)
    if installed > LATEST:
        raise SchemaVersionError(
            f"the database has version {installed} of the schema, and this oban_sqla knows"
            f" versions up to {LATEST}: install a newer oban_sqla"
        )
    return installed
