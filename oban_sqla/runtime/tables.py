"""Find the schema of the tables, and check that the connections may use them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Executable

from ..errors import ObanError, PrivilegeMissingError, SchemaMissingError
from ..statements.inspect import (
    TABLES,
    connection_settings,
    current_role,
    hidden_homes,
    home,
    installed,
)

Fetch: TypeAlias = Callable[[Executable], Awaitable[Sequence[Any]]]


async def verify_connection(fetch: Fetch, *, writes: bool) -> None:
    """`ObanError` if the client encoding is not UTF-8, or if the node `writes` but can't."""
    ((name, read_only),) = await fetch(connection_settings())
    if read_only and writes:
        raise ObanError(
            "the engine's connections are read-only, since default_transaction_read_only is on:"
            " turn it off for the role, the database or the server, or make the engine with"
            ' connect_args={"options": "-c default_transaction_read_only=off"}'
        )
    if name != "UTF8":
        raise ObanError(
            f"the engine's connections have the client encoding {name}, in which psycopg can't read"
            ' JSON: make the engine with connect_args={"client_encoding": "utf8"}'
        )


async def find_schema(fetch: Fetch, database: str | None) -> str | None:
    """The schema in which the search path finds the tables; `None` if there is none.

    `PrivilegeMissingError` if there are tables, but only in schemas that the role may not use.
    """
    if rows := await fetch(home()):
        found: str = rows[0][0]
        return found
    if hidden := [name for (name,) in await fetch(hidden_homes())]:
        lacking = f"USAGE of the schema {' or '.join(map(repr, hidden))}"
        raise await _missing(fetch, f"in database {database!r}", lacking)
    return None


async def verify(
    fetch: Fetch, database: str | None, schema: str | None, privileges: Sequence[str]
) -> None:
    """Check that the schema has all tables, and that the role has the privileges on each.

    `SchemaMissingError` and `PrivilegeMissingError` name the remedy.
    """
    found = {} if schema is None else dict(map(tuple, await fetch(installed(schema, privileges))))
    if missing := [name for name in TABLES if name not in found]:
        where = f"schema {schema!r} of " if schema else ""
        option = f" --prefix {schema}" if schema else ""
        raise SchemaMissingError(
            f"{', '.join(missing)} not found in {where}database {database!r}:"
            f" install the tables with `oban-sqla schema upgrade --dsn ...{option}`,"
            " or with op.upgrade_oban() in an Alembic migration"
        )
    if lacking := [f"{found[name]} on {name}" for name in TABLES if found[name]]:
        where = f"in schema {schema!r} of database {database!r}"
        raise await _missing(fetch, where, "; ".join(lacking))


async def _missing(fetch: Fetch, where: str, lacking: str) -> PrivilegeMissingError:
    ((role,),) = await fetch(current_role())
    return PrivilegeMissingError(
        f"the role {role!r} lacks privileges {where}, {lacking}: grant them with"
        f" `oban-sqla schema grant --run {role}` as the owner of the tables, or with"
        f" op.grant_oban(run={role!r}) in an Alembic migration"
    )
