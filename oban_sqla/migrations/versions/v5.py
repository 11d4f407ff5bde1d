"""Version 5: once created an index on the arguments of all jobs, which version 6 drops.

It creates nothing any more, so that a new schema does not build the index only to drop it.
"""

from alembic.operations import Operations

TABLES = ()

INDEX = "oban_sqla_jobs_args_index"


def upgrade(op: Operations, prefix: str | None) -> None:
    """Create nothing."""


def downgrade(op: Operations, prefix: str | None) -> None:
    op.drop_index(INDEX, "oban_jobs", schema=prefix, if_exists=True)
