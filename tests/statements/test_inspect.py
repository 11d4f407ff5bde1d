"""Look up the installed tables, and where they are."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from oban_sqla.statements.inspect import TABLES, home, installed
from tests.statements.conftest import Run


async def test_the_tables_of_a_schema_are_found(run: Run, prefix: str) -> None:
    assert {row.name for row in await run(installed(prefix))} == set(TABLES)
    assert await run(installed("no_such_schema")) == []
    assert await run(installed("'; --")) == []


async def test_the_schema_on_the_search_path_is_found(
    connection: AsyncConnection, run: Run, prefix: str
) -> None:
    await connection.execute(text(f'SET search_path TO "{prefix}"'))
    assert await run(home()) == [(prefix,)]
    await connection.execute(text("SET search_path TO pg_catalog"))
    assert await run(home()) == []
    await connection.execute(text("RESET search_path"))
