"""The Alembic plugin with which autogenerate writes `op.upgrade_oban()`.

Alembic finds the plugin by its entry point, so `env.py` needs no change. Plugins whose names begin
with `alembic.autogenerate` are on by default. To turn this one off, configure
`autogenerate_plugins=["alembic.autogenerate.*", "~alembic.autogenerate.oban_sqla"]`.
`context.configure(oban_prefix="jobs")` names the schema of the tables.
"""

from typing import TYPE_CHECKING

from alembic.util import DispatchPriority

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import UpgradeOps
    from alembic.runtime.plugins import Plugin
    from alembic.util import PriorityDispatchResult

NAME = "alembic.autogenerate.oban_sqla"


def setup(plugin: "Plugin") -> None:
    """Register the comparators. Alembic calls this during its own import."""
    for comparator, priority in (
        # Before Alembic compares the tables, so that it logs no change of ours.
        (_leave_out, DispatchPriority.FIRST),
        # After all other comparators, so that its operation can come before theirs.
        (_compare, DispatchPriority.LAST),
    ):
        plugin.add_autogenerate_comparator(
            comparator, "autogenerate", qualifier="postgresql", priority=priority
        )


def _leave_out(context: "AutogenContext", upgrade_ops: "UpgradeOps") -> "PriorityDispatchResult":
    # Imported here, because Alembic loads its plugins during its own import.
    from .autogenerate import leave_out

    return leave_out(context, upgrade_ops)


def _compare(context: "AutogenContext", upgrade_ops: "UpgradeOps") -> "PriorityDispatchResult":
    from .autogenerate import compare

    return compare(context, upgrade_ops)
