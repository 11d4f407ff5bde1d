"""The tables of version 1: jobs, leaders, producers."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.upgrade_oban(version=1)


def downgrade() -> None:
    op.downgrade_oban(version=0)
