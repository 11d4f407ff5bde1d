"""The constraint of version 4: no two unique jobs hold the same unique key."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.upgrade_oban(version=4)


def downgrade() -> None:
    op.downgrade_oban(version=3)
