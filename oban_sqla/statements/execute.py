"""Execute a statement in the schema of the tables, through a connection of SQLAlchemy."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Connection, Executable, TwoPhaseTransaction

Make: TypeAlias = Callable[..., Executable]
"""Makes a statement for a `prefix`, `announced` or not."""

Parameters: TypeAlias = Mapping[str, str]


def execute_core(
    connection: Connection, make: Make, parameters: Parameters, prefix: str | None
) -> Sequence[Sequence[Any]]:
    """Execute a statement through a connection of SQLAlchemy, in the schema of the tables."""
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    home = schemas.get(None) or prefix
    # A cursor of the server, which a user may want for other statements, can't insert rows.
    options: dict[str, Any] = {"stream_results": False, "yield_per": None}
    if home:
        options["schema_translate_map"] = {**schemas, None: home}
    # PostgreSQL refuses PREPARE TRANSACTION after a NOTIFY.
    announced = not isinstance(connection.get_transaction(), TwoPhaseTransaction)
    statement = make(prefix=home, announced=announced)
    return connection.execute(statement, parameters, execution_options=options).all()
