"""Version 8: limits by key, and rates.

The meta of a limited job stores the key by which its limit and its rate count it. The index
contains only limited jobs.
"""

import sqlalchemy as sa
from alembic.operations import Operations

from ..ddl import name, primary_key, set_storage
from .v1 import STORAGE

TABLES = ("oban_sqla_rates", "oban_sqla_starts")

PARTITION_INDEX = "oban_sqla_jobs_partition_index"
STARTS_INDEX = "oban_sqla_starts_at_index"


def upgrade(op: Operations, prefix: str | None) -> None:
    op.create_table(
        "oban_sqla_rates",
        sa.Column("rate", sa.Text),
        sa.Column("tokens", sa.Double),
        sa.Column("counted_at", sa.DateTime),
        sa.Column("held_until", sa.DateTime),
        primary_key(op, "oban_sqla_rates", "rate"),
        schema=prefix,
        if_not_exists=True,
    )
    op.create_table(
        "oban_sqla_starts",
        sa.Column("rate", sa.Text),
        sa.Column("at", sa.DateTime),
        sa.Column("starts", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.DateTime, nullable=False),
        primary_key(op, "oban_sqla_starts", "rate", "at"),
        schema=prefix,
        if_not_exists=True,
    )
    op.create_index(
        STARTS_INDEX, "oban_sqla_starts", ["expires_at"], schema=prefix, if_not_exists=True
    )
    for table in TABLES:
        set_storage(op, name(table, prefix), STORAGE)
    # The waiting jobs of a queue, ordered by key: a claim skips a full key in one step.
    op.create_index(
        PARTITION_INDEX,
        "oban_jobs",
        ["queue", "priority", sa.text("(meta ->> 'partition_key')"), "scheduled_at", "id"],
        schema=prefix,
        postgresql_where=sa.text("state = 'available' AND meta ? 'partition_key'"),
        if_not_exists=True,
    )


def downgrade(op: Operations, prefix: str | None) -> None:
    op.drop_index(PARTITION_INDEX, "oban_jobs", schema=prefix, if_exists=True)
    for table in reversed(TABLES):
        op.drop_table(table, schema=prefix, if_exists=True)
