"""Refuse a table of Oban for Elixir, which oban_sqla can't write."""

from alembic.operations import Operations

from ..errors import ObanError
from ..models.foreign import ERRORS_AS_ARRAY
from ..statements.inspect import errors_as_array, home_of
from .ddl import execute_block, literal, name


def refuse_table_of_elixir(op: Operations, prefix: str | None) -> None:
    """Raise `ObanError`, before anything is changed, if the column `errors` is an array."""
    if op.get_context().as_sql:
        jobs = f"to_regclass({literal(name('oban_jobs', prefix))})"
        found = (
            f"EXISTS (SELECT FROM pg_attribute WHERE attrelid = {jobs} AND attname = 'errors'"
            " AND atttypid = 'jsonb[]'::regtype)"
        )
        refusal = f"RAISE EXCEPTION USING MESSAGE = {literal(ERRORS_AS_ARRAY)}"
        execute_block(op, f"BEGIN IF {found} THEN {refusal}; END IF; END")
        return
    connection = op.get_bind()
    schema = connection.scalar(home_of("oban_jobs")) if prefix is None else prefix
    if schema is not None and connection.scalar(errors_as_array(schema)):
        raise ObanError(ERRORS_AS_ARRAY)
