"""Version 6: no index on the arguments of all jobs.

It was a third of what an insert writes. `op.create_oban_args_index()` makes it for those who
search jobs by their arguments, under another name.
"""

from alembic.operations import Operations

from .v5 import INDEX

TABLES = ()


def upgrade(op: Operations, prefix: str | None) -> None:
    op.drop_index(INDEX, "oban_jobs", schema=prefix, if_exists=True)


def downgrade(op: Operations, prefix: str | None) -> None:
    """Make nothing: version 5 makes no index either."""
