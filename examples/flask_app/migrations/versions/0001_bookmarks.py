"""Bookmarks, and the tables of the jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.upgrade_oban(version=8)
    op.create_table(
        "bookmarks",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("url", sa.String, nullable=False),
        sa.Column("title", sa.String),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bookmarks")),
        sa.UniqueConstraint("url", name=op.f("uq_bookmarks_url")),
    )


def downgrade() -> None:
    op.drop_table("bookmarks")
    op.downgrade_oban(version=0)
