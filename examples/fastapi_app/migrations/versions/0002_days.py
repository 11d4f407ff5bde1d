"""The table of days. Autogenerate also added the upgrade of the tables of the jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.upgrade_oban(version=8)
    op.create_table(
        "days",
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("orders", sa.Integer, nullable=False),
        sa.Column("total", sa.Numeric(10, 2), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_days")),
    )


def downgrade() -> None:
    op.drop_table("days")
    op.downgrade_oban(version=1)
