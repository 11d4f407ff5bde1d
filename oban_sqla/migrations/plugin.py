"""The plugin that Alembic finds by itself: `op.upgrade_oban()`, which autogenerate writes.

It needs nothing in a user's `env.py`. Its name lies in `alembic.autogenerate`, whose plugins are on
by default; `autogenerate_plugins=["alembic.autogenerate.*", "~alembic.autogenerate.oban_sqla"]`
turns it off, and `context.configure(oban_prefix="jobs")` names the schema of the tables.
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
    """Called by Alembic when it is imported."""
    for comparator, priority in (
        # Before the tables are compared, so that nothing is logged of ours.
        (_leave_out, DispatchPriority.FIRST),
        # After the others, so that it can put its operation before theirs.
        (_compare, DispatchPriority.LAST),
    ):
        plugin.add_autogenerate_comparator(
            comparator, "autogenerate", qualifier="postgresql", priority=priority
        )


def _leave_out(context: "AutogenContext", upgrade_ops: "UpgradeOps") -> "PriorityDispatchResult":
    # Not at the top: Alembic loads its plugins in the middle of its own import.
    from .autogenerate import leave_out

    return leave_out(context, upgrade_ops)


def _compare(context: "AutogenContext", upgrade_ops: "UpgradeOps") -> "PriorityDispatchResult":
    from .autogenerate import compare

    return compare(context, upgrade_ops)
