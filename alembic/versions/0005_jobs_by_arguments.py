"""The index of version 5, which finds jobs by their arguments."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.upgrade_oban(version=5)


def downgrade() -> None:
    op.downgrade_oban(version=4)
