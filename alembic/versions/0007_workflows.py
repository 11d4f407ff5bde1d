"""Version 7: workflows, their steps, and chains."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.upgrade_oban(version=7)


def downgrade() -> None:
    op.downgrade_oban(version=6)
