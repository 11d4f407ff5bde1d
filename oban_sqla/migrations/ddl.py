"""What the migrations say in raw SQL, because neither Alembic nor Core has a word for it.

Everything is idempotent, and decided by the database itself: it works in Alembic's offline mode
too, where nobody can ask what is there.
"""

from collections.abc import Mapping

from alembic.operations import Operations
from sqlalchemy import PrimaryKeyConstraint, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ENUM, CreateEnumType

# Names are quoted for a paramstyle without %: what the driver wants escaped, text() does, once.
_dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]


def name(identifier: str, schema: str | None = None) -> str:
    """An identifier, quoted where PostgreSQL needs it, in its schema when one is given."""
    quote = _dialect.identifier_preparer
    if schema is None:
        return quote.quote(identifier)
    return f"{quote.quote_schema(schema)}.{quote.quote(identifier)}"


def literal(value: str) -> str:
    """A string constant."""
    return "'" + value.replace("'", "''") + "'"


def primary_key(op: Operations, table: str, *columns: str) -> PrimaryKeyConstraint:
    """A table's primary key, by the name that PostgreSQL would choose.

    What is given as `op.f(...)`, here and for other constraints, no naming convention of the user's
    metadata changes: the names are Oban's.
    """
    return PrimaryKeyConstraint(*columns, name=op.f(f"{table}_pkey"))


def execute(op: Operations, statement: str) -> None:
    """Run a complete statement: nothing in it is taken for a parameter."""
    op.execute(text(statement.replace(":", r"\:")))


def create_schema(op: Operations, schema: str) -> None:
    """Create the schema unless it exists."""
    # CREATE SCHEMA IF NOT EXISTS demands the right to create one even when it does.
    missing = f"to_regnamespace({literal(name(schema))}) IS NULL"
    execute_block(op, f"BEGIN IF {missing} THEN CREATE SCHEMA {name(schema)}; END IF; END")


def create_enum(op: Operations, enum: ENUM) -> None:
    """Create an enum type unless it exists."""
    create = CreateEnumType(enum).compile(dialect=_dialect)
    execute_block(op, f"BEGIN {create}; EXCEPTION WHEN duplicate_object THEN NULL; END")


def create_function(op: Operations, signature: str, body: str) -> None:
    """Create a function in PL/pgSQL unless it exists."""
    create = f"CREATE FUNCTION {signature} LANGUAGE plpgsql AS {quoted(body, '$function$')}"
    execute_block(op, f"BEGIN {create}; EXCEPTION WHEN duplicate_function THEN NULL; END")


def add_constraint(op: Operations, table: str, constraint: str, definition: str) -> None:
    """Add a constraint to a table unless it has one of that name."""
    add = f"ALTER TABLE {table} ADD CONSTRAINT {name(constraint)} {definition}"
    execute_block(
        op, f"BEGIN {add}; EXCEPTION WHEN duplicate_object OR duplicate_table THEN NULL; END"
    )


def set_storage(op: Operations, table: str, parameters: Mapping[str, float]) -> None:
    """Set a table's storage parameters unless somebody already chose any."""
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
    # Dollars spare the reader of an offline script the doubled quotes.
    return literal(body) if tag in body else f"{tag}{body}{tag}"
