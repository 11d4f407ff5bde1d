"""Version 7: workflows, their steps, and chains.

`oban_workflows` has the columns that Oban Web reads, and five of ours at the end. A step is a job
of a workflow. Its row counts the steps that it waits for, and names the steps that wait for it.
"""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import postgresql as pg

from ..ddl import add_constraint, create_function, execute, name, primary_key, set_storage
from .v1 import STORAGE

TABLES = ("oban_workflows", "oban_sqla_workflow_steps")

WORKFLOW_INDEX = "oban_sqla_jobs_workflow_index"
CHAIN_INDEX = "oban_sqla_jobs_chain_index"
UNIQUE_INDEX = "oban_sqla_workflows_unique_index"
PARENT_INDEX = "oban_sqla_workflows_parent_index"
STEP_NAME = "oban_sqla_workflow_steps_name_key"
JOIN_CHAIN = "oban_sqla_join_chain"
OPEN_INDEX = "oban_sqla_workflow_steps_open_index"

# A transaction that enqueues a job of a chain locks the chain until it ends, and draws the job's id
# after it has the lock. So the ids of a chain have the order of the commits. Advisory locks belong
# to the database: with the id of the table, the chains of two schemas have different locks.
JOIN = """
DECLARE
  chain text := NEW.meta ->> 'chain_id';
  busy boolean;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(chain, TG_RELID::bigint));
  NEW.id := nextval(pg_get_serial_sequence(
    quote_ident(TG_TABLE_SCHEMA) || '.' || quote_ident(TG_TABLE_NAME), 'id'));
  IF NEW.state::text IN ('available', 'scheduled') THEN
    EXECUTE format(
      'SELECT EXISTS (SELECT FROM %I.%I WHERE meta ? ''chain_id'' AND meta ->> ''chain_id'' = $1'
      ' AND state NOT IN (''completed'', ''cancelled'')'
      ' AND (state::text <> ''discarded'' OR meta ->> ''chain'' = ''hold''))',
      TG_TABLE_SCHEMA, TG_TABLE_NAME) INTO busy USING chain;
    IF busy THEN NEW.state := 'suspended'; END IF;
  END IF;
  RETURN NEW;
END
"""


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
    _create_chain_trigger(op, prefix)


def _create_chain_trigger(op: Operations, prefix: str | None) -> None:
    jobs, join_chain = name("oban_jobs", prefix), name(JOIN_CHAIN, prefix)
    create_function(op, f"{join_chain}() RETURNS trigger", JOIN)
    # The server checks the condition without a call of the function, so other jobs cost nothing.
    execute(
        op,
        f"CREATE OR REPLACE TRIGGER {JOIN_CHAIN} BEFORE INSERT ON {jobs} FOR EACH ROW"
        f" WHEN (NEW.meta ? 'chain_id') EXECUTE FUNCTION {join_chain}()",
    )


def downgrade(op: Operations, prefix: str | None) -> None:
    execute(op, f"DROP TRIGGER IF EXISTS {JOIN_CHAIN} ON {name('oban_jobs', prefix)}")
    execute(op, f"DROP FUNCTION IF EXISTS {name(JOIN_CHAIN, prefix)}()")
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
        schema=prefix,
        if_not_exists=True,
    )
    steps = name("oban_sqla_workflow_steps", prefix)
    add_constraint(op, steps, STEP_NAME, "UNIQUE (workflow_id, name)")
    op.create_index(
        OPEN_INDEX,
        "oban_sqla_workflow_steps",
        ["job_id"],
        schema=prefix,
        postgresql_where=sa.text("ended IS NULL"),
        if_not_exists=True,
    )
    set_storage(op, steps, STORAGE)


def _create_job_indexes(op: Operations, prefix: str | None) -> None:
    # Partial indexes: they contain only jobs of workflows, and jobs of chains.
    op.create_index(
        WORKFLOW_INDEX,
        "oban_jobs",
        [sa.text("(meta ->> 'workflow_id')")],
        schema=prefix,
        postgresql_using="hash",
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
