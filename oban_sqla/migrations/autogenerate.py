"""Autogenerate: propose `op.upgrade_oban()` for our tables, and no other change of them."""

import logging
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import UpgradeOps
from alembic.util import PriorityDispatchResult
from sqlalchemy import Connection, column, inspect, select, table

from . import version_table
from .operations import DowngradeObanOp, UpgradeObanOp
from .versions import LATEST, TABLES

# A child of Alembic's logger, so that its level and handlers apply.
logger = logging.getLogger("alembic.autogenerate.oban_sqla")


def leave_out(context: AutogenContext, upgrade_ops: UpgradeOps) -> PriorityDispatchResult:
    """Filter our tables out before the other comparators look at the tables."""
    names, objects = context.run_name_filters, context.run_object_filters

    def run_name_filters(name: Any, type_: Any, parent_names: Any) -> bool:
        table_name = name if type_ == "table" else parent_names.get("table_name")
        return table_name not in TABLES and names(name, type_, parent_names)

    def run_object_filters(
        object_: Any, name: Any, type_: Any, reflected: bool, compare_to: Any
    ) -> bool:
        subject = object_ if type_ == "table" else getattr(object_, "table", None)
        ours = getattr(subject, "name", None) in TABLES
        return not ours and objects(object_, name, type_, reflected, compare_to)

    # The context calls these two for each name and object. They still call the user's filters,
    # `include_name` and `include_object`.
    setattr(context, "run_name_filters", run_name_filters)  # noqa: B010 - a method, to mypy
    setattr(context, "run_object_filters", run_object_filters)  # noqa: B010
    return PriorityDispatchResult.CONTINUE


def compare(context: AutogenContext, upgrade_ops: UpgradeOps) -> PriorityDispatchResult:
    """Propose to upgrade each schema whose tables are behind the latest version."""
    assert context.connection is not None
    for prefix in reversed(_prefixes(context)):
        installed = version_table.applied(context.connection, prefix)
        if installed < LATEST:
            where = "" if prefix is None else f" in schema {prefix!r}"
            found = f"version {installed}" if installed else "no tables"
            logger.info("Detected %s of oban_sqla%s, not version %d", found, where, LATEST)
            # The generated downgrade goes back to the recorded version, even if a part is missing.
            recorded = version_table.recorded(context.connection, prefix)
            # First, so that later steps of the migration find the tables.
            upgrade_ops.ops.insert(0, UpgradeObanOp(LATEST, prefix, installed=recorded))
    return PriorityDispatchResult.CONTINUE


def _prefixes(context: AutogenContext) -> list[str | None]:
    """The schemas with our tables; `None`, for the search path, if there are none yet."""
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
