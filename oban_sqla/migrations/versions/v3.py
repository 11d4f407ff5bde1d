"""Version 3: an index that finds the jobs of a row, by their argument `self`."""

import sqlalchemy as sa
from alembic.operations import Operations

TABLES = ()


def upgrade(op: Operations, prefix: str | None) -> None:
    # A hash index takes a jsonb of any size. It contains only jobs of rows.
    op.create_index(
        "oban_sqla_jobs_self_index",
        "oban_jobs",
        [sa.text("(args -> 'self')")],
        schema=prefix,
        postgresql_using="hash",
        postgresql_where=sa.text("(args -> 'self') IS NOT NULL"),
        if_not_exists=True,
    )


def downgrade(op: Operations, prefix: str | None) -> None:
    op.drop_index("oban_sqla_jobs_self_index", "oban_jobs", schema=prefix, if_exists=True)
