"""Installing the tables: the DDL of every version of the schema, and the ways to apply it.

Importing this package gives Alembic's `op` two operations: `op.upgrade_oban()` and
`op.downgrade_oban()`. Without an Alembic project, `upgrade`, `downgrade` and `current` do the same
on a SQLAlchemy connection.
"""

from .installer import current, downgrade, upgrade
from .operations import DowngradeObanOp, UpgradeObanOp
from .versions import LATEST

__all__ = ["LATEST", "DowngradeObanOp", "UpgradeObanOp", "current", "downgrade", "upgrade"]
