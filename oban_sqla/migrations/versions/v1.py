"""Version 1: the tables of Oban for Python 0.7, and the table of our versions.

Tables that Oban for Python has already installed stay as they are, with their rows.
"""

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import postgresql as pg

from ..ddl import (
    create_enum,
    create_function,
    create_schema,
    execute,
    literal,
    name,
    primary_key,
    set_storage,
)
from ..version_table import NAME as VERSION_TABLE

STATES = (
    "available",
    "scheduled",
    "suspended",
    "executing",
    "retryable",
    "completed",
    "discarded",
    "cancelled",
)

TABLES = ("oban_jobs", "oban_leaders", "oban_producers", VERSION_TABLE)

STORAGE = {
    # A row is updated two or three times: leave room for its new versions on the same page.
    "fillfactor": 85,
    # Dead rows slow claims down: vacuum early, fast, and also after bursts of inserts.
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 50,
    "autovacuum_vacuum_insert_scale_factor": 0.02,
    "autovacuum_vacuum_insert_threshold": 1000,
    "autovacuum_vacuum_cost_limit": 2000,
    "autovacuum_vacuum_cost_delay": 1,
    # Analyze early: otherwise the planner takes a queue that has just filled for an empty one.
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_analyze_threshold": 100,
}


def upgrade(op: Operations, prefix: str | None) -> None:
    if prefix is not None:
        create_schema(op, prefix)
    _create_state(op, prefix)
    _create_jobs(op, prefix)
    _create_leaders(op, prefix)
    _create_producers(op, prefix)
    _create_count_estimate(op, prefix)
    op.create_table(
        VERSION_TABLE,
        sa.Column("version", sa.Integer, autoincrement=False),
        _instant("upgraded_at", default=True),
        primary_key(op, VERSION_TABLE, "version"),
        schema=prefix,
        if_not_exists=True,
    )


def downgrade(op: Operations, prefix: str | None) -> None:
    execute(op, f"DROP FUNCTION IF EXISTS {name('oban_count_estimate', prefix)}(text, text)")
    for table in reversed(TABLES):
        op.drop_table(table, schema=prefix, if_exists=True)
    execute(op, f"DROP TYPE IF EXISTS {name('oban_job_state', prefix)}")


def _create_state(op: Operations, prefix: str | None) -> None:
    create_enum(op, _state(prefix))
    # A type that an older Oban created lacks 'suspended'.
    state = name("oban_job_state", prefix)
    execute(op, f"ALTER TYPE {state} ADD VALUE IF NOT EXISTS 'suspended' AFTER 'scheduled'")


def _create_jobs(op: Operations, prefix: str | None) -> None:
    op.create_table(
        "oban_jobs",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True)),
        sa.Column("state", _state(prefix), nullable=False, server_default="available"),
        sa.Column("queue", sa.Text, nullable=False, server_default="default"),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("attempt", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("max_attempts", sa.SmallInteger, nullable=False, server_default=sa.text("20")),
        sa.Column("priority", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("args", pg.JSONB, nullable=False, server_default="{}"),
        sa.Column("meta", pg.JSONB, nullable=False, server_default="{}"),
        _texts("tags"),
        sa.Column("errors", pg.JSONB, nullable=False, server_default="[]"),
        _texts("attempted_by"),
        _instant("inserted_at", default=True),
        _instant("scheduled_at", default=True),
        _instant("attempted_at", nullable=True),
        _instant("cancelled_at", nullable=True),
        _instant("completed_at", nullable=True),
        _instant("discarded_at", nullable=True),
        primary_key(op, "oban_jobs", "id"),
        sa.CheckConstraint("attempt >= 0 AND attempt <= max_attempts", name=op.f("attempt_range")),
        sa.CheckConstraint("char_length(queue) > 0", name=op.f("queue_length")),
        sa.CheckConstraint("char_length(worker) > 0", name=op.f("worker_length")),
        sa.CheckConstraint("max_attempts > 0", name=op.f("positive_max_attempts")),
        sa.CheckConstraint("priority >= 0", name=op.f("non_negative_priority")),
        schema=prefix,
        if_not_exists=True,
    )
    set_storage(op, name("oban_jobs", prefix), STORAGE)
    _create_job_indexes(op, prefix)


def _create_job_indexes(op: Operations, prefix: str | None) -> None:
    op.create_index(
        "oban_jobs_state_queue_priority_scheduled_at_id_index",
        "oban_jobs",
        ["state", "queue", "priority", "scheduled_at", "id"],
        schema=prefix,
        if_not_exists=True,
        postgresql_with={"fillfactor": 90},
    )
    op.create_index(
        "oban_jobs_staging_index",
        "oban_jobs",
        ["scheduled_at", "id"],
        schema=prefix,
        if_not_exists=True,
        postgresql_include=["queue"],
        postgresql_where=sa.text("state IN ('scheduled', 'retryable')"),
    )
    for state in ("completed", "cancelled", "discarded"):
        op.create_index(
            f"oban_jobs_{state}_at_index",
            "oban_jobs",
            [f"{state}_at"],
            schema=prefix,
            if_not_exists=True,
            postgresql_where=sa.text(f"state = '{state}'"),
        )


def _create_leaders(op: Operations, prefix: str | None) -> None:
    op.create_table(
        "oban_leaders",
        sa.Column("name", sa.Text, server_default="oban"),
        sa.Column("node", sa.Text, nullable=False),
        _instant("elected_at"),
        _instant("expires_at"),
        primary_key(op, "oban_leaders", "name"),
        schema=prefix,
        if_not_exists=True,
        prefixes=["UNLOGGED"],
    )


def _create_producers(op: Operations, prefix: str | None) -> None:
    op.create_table(
        "oban_producers",
        sa.Column("uuid", sa.Uuid),
        sa.Column("name", sa.Text, nullable=False, server_default="oban"),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("meta", pg.JSONB, nullable=False, server_default="{}"),
        _instant("started_at", default=True),
        _instant("updated_at", default=True),
        primary_key(op, "oban_producers", "uuid"),
        schema=prefix,
        if_not_exists=True,
        prefixes=["UNLOGGED"],
    )


def _create_count_estimate(op: Operations, prefix: str | None) -> None:
    """Create the function that estimates the jobs of a queue in a state, for Oban's dashboards."""
    jobs = name("oban_jobs", prefix)
    state = name("oban_job_state", prefix)
    query = f"EXPLAIN (FORMAT JSON) SELECT FROM {jobs} WHERE state = $1::{state} AND queue = $2"
    create_function(
        op,
        f"{name('oban_count_estimate', prefix)}(state text, queue text) RETURNS integer"
        # The function uses the tables in its own schema, whatever the caller's search path is.
        + (" SET search_path FROM CURRENT" if prefix is None else ""),
        f"""
DECLARE
  plan jsonb;
BEGIN
  EXECUTE {literal(query)} INTO plan USING state, queue;
  RETURN plan #> '{{0,Plan,Plan Rows}}';
END
""",
    )


def _state(prefix: str | None) -> pg.ENUM:
    return pg.ENUM(*STATES, name="oban_job_state", schema=prefix, create_type=False)


def _texts(column: str) -> sa.Column[list[str]]:
    empty = sa.text("ARRAY[]::text[]")
    return sa.Column(column, pg.ARRAY(sa.Text), nullable=False, server_default=empty)


def _instant(column: str, *, default: bool = False, nullable: bool = False) -> sa.Column[object]:
    now = sa.func.timezone("UTC", sa.func.now()) if default else None
    return sa.Column(column, sa.DateTime, nullable=nullable, server_default=now)
