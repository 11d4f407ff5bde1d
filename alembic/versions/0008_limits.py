"""Version 8: limits by key, and rates."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.upgrade_oban(version=8)


def downgrade() -> None:
    op.downgrade_oban(version=7)
