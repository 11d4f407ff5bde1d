"""Version 6: the index on the arguments becomes optional."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.upgrade_oban(version=6)


def downgrade() -> None:
    op.downgrade_oban(version=5)
