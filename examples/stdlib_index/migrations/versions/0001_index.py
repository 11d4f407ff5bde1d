"""The tables of the jobs and of the index."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.upgrade_oban(version=8)
    op.create_table(
        "index_runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("python", sa.String, nullable=False),
        sa.Column("root", sa.String, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.func.now(),
            nullable=False,
        ),
    )
    op.create_table(
        "index_files",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run_id", sa.Integer, sa.ForeignKey("index_runs.id"), nullable=False),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("module", sa.String),
        sa.Column("lines", sa.Integer),
        sa.UniqueConstraint("run_id", "path"),
    )
    op.create_table(
        "index_definitions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "file_id", sa.Integer, sa.ForeignKey("index_files.id"), nullable=False, index=True
        ),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("index_definitions")
    op.drop_table("index_files")
    op.drop_table("index_runs")
    op.downgrade_oban(version=0)
