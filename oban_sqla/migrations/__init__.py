"""Install the tables: the DDL of each version of the schema, and the ways to apply it.

Importing this package registers the operations `op.upgrade_oban()`, `op.downgrade_oban()`,
`op.grant_oban()`, `op.create_oban_args_index()` and `op.drop_oban_args_index()` with Alembic.
Without an Alembic project, functions of this package do the same on a SQLAlchemy connection.
"""

from .args_index import CreateObanArgsIndexOp, DropObanArgsIndexOp
from .grants import GrantObanOp
from .installer import (
    create_args_index,
    current,
    downgrade,
    drop_args_index,
    grant,
    missing,
    upgrade,
)
from .operations import DowngradeObanOp, UpgradeObanOp
from .versions import LATEST

__all__ = [
    "LATEST",
    "CreateObanArgsIndexOp",
    "DowngradeObanOp",
    "DropObanArgsIndexOp",
    "GrantObanOp",
    "UpgradeObanOp",
    "create_args_index",
    "current",
    "downgrade",
    "drop_args_index",
    "grant",
    "missing",
    "upgrade",
]
