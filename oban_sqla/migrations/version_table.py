"""`oban_sqla_version`: which versions are applied, whoever applied them."""

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

NAME = "oban_sqla_version"


def current(connection: Connection, prefix: str | None) -> int:
    """The highest version that is applied; 0 when there is none."""
    if not inspect(connection).has_table(NAME, schema=prefix):
        return 0
    return connection.scalar(select(func.max(_table(prefix).c.version))) or 0


def add(op: Operations, version: int, prefix: str | None) -> None:
    """Record that a version is applied."""
    op.execute(insert(_table(prefix)).values(version=version).on_conflict_do_nothing())


def remove(op: Operations, version: int, prefix: str | None) -> None:
    """Forget a version."""
    versions = _table(prefix)
    op.execute(delete(versions).where(versions.c.version == version))


def _table(prefix: str | None) -> TableClause:
    # Not the model: what is recorded must not change with it.
    return table(NAME, column("version", Integer), schema=prefix)
