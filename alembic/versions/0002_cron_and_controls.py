"""The tables of version 2: the ticks of cron, and the orders to queues."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.upgrade_oban(version=2)


def downgrade() -> None:
    op.downgrade_oban(version=1)
