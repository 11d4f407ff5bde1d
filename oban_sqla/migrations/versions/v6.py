"""Version 6: no index on the arguments of all jobs, and a public function for Oban for Python.

The index was a third of what an insert writes. Users who search jobs by their arguments create it
with `op.create_oban_args_index()`, under another name.

Oban for Python calls `oban_count_estimate` without a schema, even if its tables are in a schema.
"""

from alembic.operations import Operations

from ..ddl import execute_block, literal, name, quoted
from .v5 import INDEX

TABLES = ()

# The statement that calls the function names the schema of its tables.
ESTIMATE = r"""
DECLARE
  plan jsonb;
  home text := coalesce(
    (regexp_match(current_query(), '((?:"(?:[^"]|"")+"|\w+)\.)"?oban_(?:producers|jobs)'))[1], '');
BEGIN
  EXECUTE format(
    'EXPLAIN (FORMAT JSON) SELECT FROM %soban_jobs WHERE state = $1::%soban_job_state'
    ' AND queue = $2', home, home) INTO plan USING state, queue;
  RETURN plan #> '{0,Plan,Plan Rows}';
END
"""
# In the schema `public`, where the search path of Oban for Python finds the function.
SIGNATURE = "public.oban_count_estimate(text, text)"


def upgrade(op: Operations, prefix: str | None) -> None:
    op.drop_index(INDEX, "oban_jobs", schema=prefix, if_exists=True)
    create = (
        "CREATE FUNCTION public.oban_count_estimate(state text, queue text) RETURNS integer"
        f" LANGUAGE plpgsql AS {quoted(ESTIMATE, '$function$')}"
    )
    # Without the privilege, or without a schema `public`, users must set a search path for Oban.
    execute_block(
        op,
        f"BEGIN IF to_regprocedure({literal(SIGNATURE)}) IS NULL THEN {create}; END IF;"
        " EXCEPTION WHEN insufficient_privilege OR invalid_schema_name THEN NULL; END",
    )


def downgrade(op: Operations, prefix: str | None) -> None:
    """Drop the function that `upgrade` created, unless another schema of ours still needs it."""
    ours = (
        f"EXISTS (SELECT FROM pg_proc WHERE oid = to_regprocedure({literal(SIGNATURE)})"
        " AND prosrc LIKE '%current_query()%')"
    )
    others = (
        "EXISTS (SELECT FROM pg_class WHERE relname = 'oban_sqla_version'"
        f" AND oid <> to_regclass({literal(name('oban_sqla_version', prefix))}))"
    )
    execute_block(
        op, f"BEGIN IF {ours} AND NOT {others} THEN DROP FUNCTION {SIGNATURE}; END IF; END"
    )
