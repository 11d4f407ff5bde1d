"""Version 2: a table of the last cron ticks, and a table of the orders to queues."""

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import postgresql as pg

from ..ddl import primary_key

TABLES = ("oban_sqla_cron", "oban_sqla_controls")


def upgrade(op: Operations, prefix: str | None) -> None:
    op.create_table(
        "oban_sqla_cron",
        sa.Column("name", sa.Text),
        sa.Column("entry", sa.Text),
        sa.Column("ticked_at", sa.DateTime, nullable=False),
        primary_key(op, "oban_sqla_cron", "name", "entry"),
        schema=prefix,
        if_not_exists=True,
    )
    op.create_table(
        "oban_sqla_controls",
        sa.Column("name", sa.Text),
        sa.Column("node", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("setting", sa.Text),
        sa.Column("value", pg.JSONB, nullable=False),
        sa.Column("changed_at", sa.DateTime, nullable=False),
        primary_key(op, "oban_sqla_controls", "name", "node", "queue", "setting"),
        schema=prefix,
        if_not_exists=True,
    )


def downgrade(op: Operations, prefix: str | None) -> None:
    for table in reversed(TABLES):
        op.drop_table(table, schema=prefix, if_exists=True)
