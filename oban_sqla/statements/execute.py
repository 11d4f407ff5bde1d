"""Execute a statement in the schema of the tables, through a connection of SQLAlchemy."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Connection, Executable, TwoPhaseTransaction

Make: TypeAlias = Callable[..., Executable]
"""Makes a statement for a `prefix`, `announced` or not."""

Parameters: TypeAlias = Mapping[str, str]

_STREAMING = frozenset(("stream_results", "yield_per"))


def execute_core(
    connection: Connection, make: Make, parameters: Parameters, prefix: str | None
) -> Sequence[Sequence[Any]]:
    """Execute a statement through a connection of SQLAlchemy, in the schema of the tables."""
    given = connection.get_execution_options()
    schemas = given.get("schema_translate_map") or {}
    home = schemas.get(None) or prefix
    options: dict[str, Any] = {}
    if _STREAMING & given.keys():
        # A cursor of the server, which a user may want for other statements, can't insert rows.
        options = dict.fromkeys(_STREAMING)
    if home:
        options["schema_translate_map"] = {**schemas, None: home}
    # PostgreSQL refuses PREPARE TRANSACTION after a NOTIFY.
    announced = not isinstance(connection.get_transaction(), TwoPhaseTransaction)
    statement = make(prefix=home, announced=announced)
    return connection.execute(statement, parameters, execution_options=options).all()
