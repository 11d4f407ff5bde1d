"""Version 7: workflows, their steps, and chains.

`oban_workflows` has the columns that Oban Web reads, and five of ours at the end. A step is a job
of a workflow. Its row counts the steps that it waits for, and names the steps that wait for it.
"""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import postgresql as pg

from ..ddl import name, primary_key, set_storage
from .v1 import STORAGE

TABLES = ("oban_workflows", "oban_sqla_workflow_steps")

WORKFLOW_INDEX = "oban_sqla_jobs_workflow_index"
CHAIN_INDEX = "oban_sqla_jobs_chain_index"
UNIQUE_INDEX = "oban_sqla_workflows_unique_index"
PARENT_INDEX = "oban_sqla_workflows_parent_index"
STEP_NAME = "oban_sqla_workflow_steps_name_key"
OPEN_INDEX = "oban_sqla_workflow_steps_open_index"


def upgrade(op: Operations, prefix: str | None) -> None:
    op.create_table(
        "oban_workflows",
        sa.Column("id", sa.Text),
        sa.Column("name", sa.Text),
        sa.Column("parent_id", sa.Text),
        sa.Column("state", sa.Text, nullable=False, server_default="executing"),
        sa.Column("meta", pg.JSONB, nullable=False, server_default="{}"),
        *_counts(
            "suspended",
            "available",
            "scheduled",
            "executing",
            "retryable",
            "completed",
            "cancelled",
            "discarded",
        ),
        sa.Column("started_at", sa.DateTime),
        sa.Column("completed_at", sa.DateTime),
        sa.Column(
            "inserted_at",
            sa.DateTime,
            nullable=False,
            server_default=sa.func.timezone("UTC", sa.func.now()),
        ),
        primary_key(op, "oban_workflows", "id"),
        schema=prefix,
        if_not_exists=True,
    )
    # Added one by one, since another Oban may have created the table.
    ours: list[sa.Column[Any]] = [*_counts("total", "open", "lasts", "untried")]
    for column in (*ours, sa.Column("unique_key", sa.Text)):
        op.add_column("oban_workflows", column, schema=prefix, if_not_exists=True)
    op.create_index(
        UNIQUE_INDEX,
        "oban_workflows",
        ["unique_key"],
        schema=prefix,
        unique=True,
        postgresql_where=sa.text("unique_key IS NOT NULL"),
        if_not_exists=True,
    )
    op.create_index(
        PARENT_INDEX,
        "oban_workflows",
        ["parent_id"],
        schema=prefix,
        postgresql_where=sa.text("parent_id IS NOT NULL"),
        if_not_exists=True,
    )
    set_storage(op, name("oban_workflows", prefix), STORAGE)
    _create_steps(op, prefix)
    _create_job_indexes(op, prefix)


def downgrade(op: Operations, prefix: str | None) -> None:
    for index in (CHAIN_INDEX, WORKFLOW_INDEX):
        op.drop_index(index, "oban_jobs", schema=prefix, if_exists=True)
    for table in reversed(TABLES):
        op.drop_table(table, schema=prefix, if_exists=True)


def _create_steps(op: Operations, prefix: str | None) -> None:
    op.create_table(
        "oban_sqla_workflow_steps",
        sa.Column("job_id", sa.BigInteger, autoincrement=False),
        sa.Column("workflow_id", sa.Text, nullable=False),
        sa.Column("path", pg.ARRAY(sa.Text), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False, server_default="step"),
        sa.Column("waits", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("dependents", pg.ARRAY(sa.BigInteger), nullable=False, server_default="{}"),
        sa.Column("on_cancelled", sa.Text, nullable=False, server_default="cancel"),
        sa.Column("on_discarded", sa.Text, nullable=False, server_default="cancel"),
        sa.Column("on_deleted", sa.Text, nullable=False, server_default="cancel"),
        sa.Column("delay", sa.Double),
        sa.Column("tried", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("ended", sa.Text),
        sa.Column("cause", sa.BigInteger),
        primary_key(op, "oban_sqla_workflow_steps", "job_id"),
        sa.UniqueConstraint("workflow_id", "name", name=op.f(STEP_NAME)),
        schema=prefix,
        if_not_exists=True,
    )
    op.create_index(
        OPEN_INDEX,
        "oban_sqla_workflow_steps",
        ["job_id"],
        schema=prefix,
        postgresql_where=sa.text("ended IS NULL"),
        if_not_exists=True,
    )
    set_storage(op, name("oban_sqla_workflow_steps", prefix), STORAGE)


def _create_job_indexes(op: Operations, prefix: str | None) -> None:
    # Partial indexes: they contain only jobs of workflows, and jobs of chains.
    op.create_index(
        WORKFLOW_INDEX,
        "oban_jobs",
        [sa.text("(meta ->> 'workflow_id')")],
        schema=prefix,
        postgresql_where=sa.text("meta ? 'workflow_id'"),
        if_not_exists=True,
    )
    # 'suspended' must not be named: the same transaction may have added it to an older type.
    op.create_index(
        CHAIN_INDEX,
        "oban_jobs",
        [sa.text("(meta ->> 'chain_id')"), "id"],
        schema=prefix,
        postgresql_where=sa.text("meta ? 'chain_id' AND state NOT IN ('completed', 'cancelled')"),
        if_not_exists=True,
    )


def _counts(*names: str) -> Iterator[sa.Column[int]]:
    for each in names:
        yield sa.Column(each, sa.Integer, nullable=False, server_default=sa.text("0"))
