"""The index of version 3, which finds the jobs of a row."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.upgrade_oban(version=3)


def downgrade() -> None:
    op.downgrade_oban(version=2)
