"""`RawStatement`: a statement that is compiled once, and sent directly through the driver."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ClauseElement, Dialect, Executable

from .database import Database
from .direct_connection import attached
from .time_limits import ANSWER_TIMEOUT, deadline

_PLACEHOLDER = re.compile(r"(?<!%)%\((\w+)\)s")


class RawStatement:
    """A statement for a database whose tables have been found.

    With psycopg, the text goes past SQLAlchemy and psycopg's cursor, which takes a third of the CPU
    time.
    The values are those of psycopg: an instant has no time zone, a state is a string. With another
    driver, SQLAlchemy executes the statement. `at_once` is as in `Database.fetch`.

    `behind` is a statement that runs first, in the same transaction and with the same parameters:
    it takes a lock, and this statement takes its snapshot after the wait for the lock. Both are
    sent in one message, so that this process can't delay the release of the lock.
    """

    def __init__(
        self,
        database: Database,
        statement: Executable,
        *,
        at_once: bool = False,
        behind: Executable | None = None,
    ) -> None:
        self._database = database
        self._statement = statement
        self._at_once = at_once
        self._behind = behind
        self._texts: list[RawText] = []
        self._direct = database.engine.dialect.driver == "psycopg"
        # After a failure, SQLAlchemy executes the statement once: if that fails, too, the engine
        # drops all lost connections of the pool.
        self._failed = False

    async def fetch(self, params: Mapping[str, Any]) -> Sequence[Any]:
        """Run the statement as a transaction of its own, and return its rows."""
        if self._failed or not self._direct or self._database.in_transactions:
            rows = await self._fetch_ordinarily(params)
            self._failed = False
            return rows
        self.compile()
        try:
            async with self._database.statement(at_once=self._at_once) as connection:
                statements = [text.filled(params) for text in self._texts]
                with attached(connection) as direct:
                    if self._behind is not None:
                        return await direct.fetch_behind(*statements)
                    return await direct.fetch(*statements[0])
        except BaseException as error:
            self._failed = True
            if not self._database.needs_transactions_after(error):
                raise
        return await self.fetch(params)

    async def _fetch_ordinarily(self, params: Mapping[str, Any]) -> Sequence[Any]:
        if self._behind is None:
            return await self._database.fetch(self._statement, params, at_once=self._at_once)
        async with deadline(ANSWER_TIMEOUT), self._database.transaction() as connection:
            await connection.execute(self._behind, params)
            return (await connection.execute(self._statement, params)).all()

    def compile(self) -> None:
        """Compile the statement now, so that the first `fetch` does not have to."""
        if self._texts or not self._direct:
            return
        schemas = tuple(self._database.schemas["schema_translate_map"].items())
        dialect = self._database.engine.dialect
        behind = () if self._behind is None else (self._behind,)
        self._texts = [raw_text(one, dialect, schemas) for one in (*behind, self._statement)]


class RawText(NamedTuple):
    """A compiled statement, and the names of its parameters in the order of their numbers."""

    text: bytes
    names: list[str]
    constants: Mapping[str, Any]

    def filled(self, params: Mapping[str, Any]) -> tuple[bytes, list[Any]]:
        values = {**self.constants, **params}
        return self.text, [values[name] for name in self.names]


# Cached, since compiling takes 5 ms, and the claims of all queues have the same text.
@lru_cache(maxsize=64)
def raw_text(
    statement: Executable, dialect: Dialect, schemas: tuple[tuple[Any, Any], ...]
) -> RawText:
    assert isinstance(statement, ClauseElement)
    compiled = statement.compile(
        dialect=dialect, schema_translate_map=dict(schemas), render_schema_translate=True
    )
    # SQLAlchemy expands values in `in_()` only when it executes a statement: use literals there.
    assert "POSTCOMPILE" not in str(compiled)
    names = list(dict.fromkeys(_PLACEHOLDER.findall(str(compiled))))
    numbers = {name: f"${number}" for number, name in enumerate(names, 1)}
    text = _PLACEHOLDER.sub(lambda match: numbers[match[1]], str(compiled))
    return RawText(text.replace("%%", "%").encode(), names, compiled.params or {})
