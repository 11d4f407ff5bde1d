"""`RawStatement`: a statement that is compiled once and sent over and over, past SQLAlchemy."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from psycopg import AsyncRawCursor
from psycopg.rows import tuple_row
from sqlalchemy import ClauseElement, Dialect, Executable

from .database import Database, driver_of

_PLACEHOLDER = re.compile(r"(?<!%)%\((\w+)\)s")


class RawStatement:
    """A statement for one database, whose tables have been found.

    Through psycopg its text goes to the server directly, which halves what a statement costs this
    process. The values come back as psycopg reads them: an instant has no time zone, a state is a
    string. Through another driver it is an ordinary statement. `at_once` is as in `Database.fetch`.
    """

    def __init__(self, database: Database, statement: Executable, *, at_once: bool = False) -> None:
        self._database = database
        self._statement = statement
        self._at_once = at_once
        self._text = b""
        self._names: list[str] = []
        self._constants: Mapping[str, Any] = {}
        self._direct = database.engine.dialect.driver == "psycopg"
        # After a failure SQLAlchemy sends it: its engine then drops all lost connections of the
        # pool at once.
        self._failed = False

    async def fetch(self, params: Mapping[str, Any]) -> Sequence[Any]:
        """Run it as a transaction of its own, and return its rows, as `Database.fetch` does."""
        if self._failed or not self._direct or self._database.in_transactions:
            rows = await self._database.fetch(self._statement, params, at_once=self._at_once)
            self._failed = False
            return rows
        if not self._text:
            self._compile()
        values = {**self._constants, **params}
        try:
            async with self._database.statement(at_once=self._at_once) as connection:
                driver = await driver_of(connection)
                cursor = AsyncRawCursor(driver, row_factory=tuple_row)
                await cursor.execute(self._text, [values[name] for name in self._names])
                return await cursor.fetchall()
        except BaseException as error:
            self._failed = True
            if not self._database.needs_transactions_after(error):
                raise
        return await self.fetch(params)

    def _compile(self) -> None:
        schemas = self._database.schemas["schema_translate_map"]
        dialect = self._database.engine.dialect
        text = _compiled(self._statement, dialect, tuple(schemas.items()))
        self._text, self._names, self._constants = text


# The claims of all queues of a node share one text: to compile it takes 5 ms.
@lru_cache(maxsize=64)
def _compiled(
    statement: Executable, dialect: Dialect, schemas: tuple[tuple[Any, Any], ...]
) -> tuple[bytes, list[str], Mapping[str, Any]]:
    """The text of a statement with `$1`, ...; the names of its parameters; its constants."""
    assert isinstance(statement, ClauseElement)
    compiled = statement.compile(
        dialect=dialect, schema_translate_map=dict(schemas), render_schema_translate=True
    )
    names = list(dict.fromkeys(_PLACEHOLDER.findall(str(compiled))))
    numbers = {name: f"${number}" for number, name in enumerate(names, 1)}
    text = _PLACEHOLDER.sub(lambda match: numbers[match[1]], str(compiled))
    return text.replace("%%", "%").encode(), names, compiled.params
