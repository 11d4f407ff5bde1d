"""DDL in raw SQL that neither Alembic nor Core can express.

Each statement is idempotent, and checks in the database what exists. So it works in Alembic's
offline mode too, where Python can't look.
"""

from collections.abc import Mapping

from alembic.operations import Operations
from sqlalchemy import PrimaryKeyConstraint, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ENUM, CreateEnumType

# A paramstyle without %, since text() escapes % for the driver already.
_dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]


def name(identifier: str, schema: str | None = None) -> str:
    """An identifier, quoted where PostgreSQL needs it, and qualified by `schema` if given."""
    quote = _dialect.identifier_preparer
    if schema is None:
        return quote.quote(identifier)
    return f"{quote.quote_schema(schema)}.{quote.quote(identifier)}"


def literal(value: str) -> str:
    """A string constant."""
    return "'" + value.replace("'", "''") + "'"


def primary_key(op: Operations, table: str, *columns: str) -> PrimaryKeyConstraint:
    """A table's primary key, with the name that PostgreSQL would choose.

    `op.f(...)`, here and for other constraints, protects Oban's names from the naming convention of
    the user's metadata.
    """
    return PrimaryKeyConstraint(*columns, name=op.f(f"{table}_pkey"))


def execute(op: Operations, statement: str) -> None:
    """Run a statement without parameters: colons in it are escaped."""
    op.execute(text(statement.replace(":", r"\:")))


def create_schema(op: Operations, schema: str) -> None:
    """Create the schema unless it exists."""
    # CREATE SCHEMA IF NOT EXISTS requires the privilege to create, even if the schema exists.
    missing = f"to_regnamespace({literal(name(schema))}) IS NULL"
    execute_block(op, f"BEGIN IF {missing} THEN CREATE SCHEMA {name(schema)}; END IF; END")


def create_enum(op: Operations, enum: ENUM) -> None:
    """Create an enum type unless it exists."""
    create = CreateEnumType(enum).compile(dialect=_dialect)
    execute_block(op, f"BEGIN {create}; EXCEPTION WHEN duplicate_object THEN NULL; END")


def create_function(op: Operations, signature: str, body: str) -> None:
    """Create a PL/pgSQL function unless it exists."""
    create = f"CREATE FUNCTION {signature} LANGUAGE plpgsql AS {quoted(body, '$function$')}"
    execute_block(op, f"BEGIN {create}; EXCEPTION WHEN duplicate_function THEN NULL; END")


def add_constraint(op: Operations, table: str, constraint: str, definition: str) -> None:
    """Add a constraint to a table unless the table has a constraint of that name."""
    add = f"ALTER TABLE {table} ADD CONSTRAINT {name(constraint)} {definition}"
    execute_block(
        op, f"BEGIN {add}; EXCEPTION WHEN duplicate_object OR duplicate_table THEN NULL; END"
    )


def set_storage(op: Operations, table: str, parameters: Mapping[str, float]) -> None:
    """Set a table's storage parameters unless the table already has any."""
    values = ", ".join(f"{parameter} = {value}" for parameter, value in parameters.items())
    chosen = f"(SELECT reloptions FROM pg_class WHERE oid = to_regclass({literal(table)}))"
    execute_block(
        op, f"BEGIN IF {chosen} IS NULL THEN ALTER TABLE {table} SET ({values}); END IF; END"
    )


def execute_block(op: Operations, body: str) -> None:
    """Run a block of PL/pgSQL."""
    execute(op, f"DO {quoted(body, '$do$')}")


def quoted(body: str, tag: str) -> str:
    """A string constant of several lines."""
    # With dollar quotes, an offline script has no doubled quotes and is easier to read.
    return literal(body) if tag in body else f"{tag}{body}{tag}"
