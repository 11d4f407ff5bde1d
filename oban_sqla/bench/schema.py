"""Create a schema for the measurements, and drop it at the end, also after an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from sqlalchemy.schema import DropSchema

from ..errors import ObanError
from ..migrations import upgrade
from ..migrations.database import engine_for


@contextmanager
def temporary_schema(dsn: str) -> Iterator[str]:
    """Give the name of a new schema with the tables, and drop the schema at the end.

    If the schema can't be dropped, the `ObanError` has the statement that drops it.
    """
    name = f"oban_bench_{uuid4().hex[:8]}"
    engine = engine_for(dsn)
    with engine.connect():
        pass  # the server can be reached, so from here on a schema may have to be dropped
    try:
        with engine.begin() as connection:
            upgrade(connection, prefix=name)
        yield name
    finally:
        try:
            with engine.begin() as connection:
                connection.execute(DropSchema(name, cascade=True, if_exists=True))
        except Exception as error:
            raise ObanError(
                f"the schema {name!r} could not be dropped ({error}):"
                f" DROP SCHEMA {name} CASCADE does it"
            ) from error
