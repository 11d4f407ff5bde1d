"""`oban_sqla_version`: the versions that are applied, by Alembic or without it."""

from alembic.operations import Operations
from sqlalchemy import (
    Connection,
    Integer,
    TableClause,
    column,
    delete,
    func,
    inspect,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import insert

from ..models.parts import missing_parts
from ..statements.inspect import home_of, parts

NAME = "oban_sqla_version"


def applied(connection: Connection, prefix: str | None) -> int:
    """The highest version that is applied and complete; 0 if there is none."""
    recorded_version = recorded(connection, prefix)
    incomplete = _incomplete(connection, prefix, recorded_version)
    return min(incomplete) - 1 if incomplete else recorded_version


def recorded(connection: Connection, prefix: str | None) -> int:
    """The highest version in the table; 0 if there is none."""
    if not inspect(connection).has_table(NAME, schema=prefix):
        return 0
    return connection.scalar(select(func.max(_table(prefix).c.version))) or 0


def missing_from_recorded(connection: Connection, prefix: str | None) -> list[str]:
    """The missing parts of the recorded versions."""
    incomplete = _incomplete(connection, prefix, recorded(connection, prefix))
    return [part for parts in incomplete.values() for part in parts]


def _incomplete(connection: Connection, prefix: str | None, recorded: int) -> dict[int, list[str]]:
    """The missing parts of each version up to the recorded one."""
    if recorded == 0:
        return {}
    schema = connection.scalar(home_of(NAME)) if prefix is None else prefix
    return missing_parts(connection.scalars(parts(schema)), recorded)


def add(op: Operations, version: int, prefix: str | None) -> None:
    """Record that a version is applied."""
    op.execute(insert(_table(prefix)).values(version=version).on_conflict_do_nothing())


def remove(op: Operations, version: int, prefix: str | None) -> None:
    """Delete the record of a version."""
    versions = _table(prefix)
    op.execute(delete(versions).where(versions.c.version == version))


def _table(prefix: str | None) -> TableClause:
    # The model may change with a later version; migrations need the table as it is now.
    return table(NAME, column("version", Integer), schema=prefix)
