"""Autogenerate: our tables are changed by `op.upgrade_oban()`, and by nothing else."""

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import MigrateOperation, ModifyTableOps, UpgradeOps
from alembic.util import PriorityDispatchResult
from sqlalchemy import Connection, column, inspect, select, table

from . import version_table
from .operations import DowngradeObanOp, UpgradeObanOp
from .versions import LATEST, TABLES


def compare(context: AutogenContext, upgrade_ops: UpgradeOps) -> PriorityDispatchResult:
    """Take out what others propose for our tables, and propose to upgrade a schema of ours."""
    upgrade_ops.ops = [op for op in upgrade_ops.ops if not _is_about_ours(op)]
    assert context.connection is not None
    for prefix in reversed(_prefixes(context)):
        installed = version_table.current(context.connection, prefix)
        if installed < LATEST:
            # First, so that what a migration does with jobs finds the tables.
            upgrade_ops.ops.insert(0, UpgradeObanOp(LATEST, prefix, installed=installed))
    return PriorityDispatchResult.CONTINUE


def _is_about_ours(op: MigrateOperation) -> bool:
    if isinstance(op, ModifyTableOps):
        return op.table_name in TABLES
    # Tables and indexes name theirs alike.
    return getattr(op, "table_name", None) in TABLES


def _prefixes(context: AutogenContext) -> list[str | None]:
    """The schemas with our tables; the one that the search path names, if there are none yet."""
    assert context.connection is not None
    if "oban_prefix" in context.opts:
        return [context.opts["oban_prefix"]]
    if inspect(context.connection).has_table(version_table.NAME):
        return [None]
    return [*_installed(context.connection)] or [None]


def _installed(connection: Connection) -> list[str]:
    tables = table(
        "tables", column("table_name"), column("table_schema"), schema="information_schema"
    )
    query = select(tables.c.table_schema).where(tables.c.table_name == version_table.NAME)
    return sorted(connection.scalars(query))


@renderers.dispatch_for(UpgradeObanOp)
def _render_upgrade(context: AutogenContext, op: UpgradeObanOp) -> str:
    return f"op.upgrade_oban({_arguments(op.version, op.prefix)})"


@renderers.dispatch_for(DowngradeObanOp)
def _render_downgrade(context: AutogenContext, op: DowngradeObanOp) -> str:
    return f"op.downgrade_oban({_arguments(op.version, op.prefix)})"


def _arguments(version: int, prefix: str | None) -> str:
    return f"version={version}" if prefix is None else f"version={version}, prefix={prefix!r}"
