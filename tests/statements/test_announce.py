"""The schema whose channels a statement uses, if only the search path names the tables."""

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla.config.oban_settings import LONGEST_PREFIX
from oban_sqla.statements.announce import schema


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ('An "odd".schema', True),
        ("ü" * (LONGEST_PREFIX // 2), True),
        ("ü" * (LONGEST_PREFIX // 2 + 1), False),
    ],
)
async def test_the_search_path_gives_the_schema_of_the_channels(
    name: str, names: bool, engine: AsyncEngine
) -> None:
    find = select(schema())
    quoted = '"' + name.replace('"', '""') + '"'
    async with engine.connect() as connection:
        await connection.execute(text("SET LOCAL search_path = pg_catalog"))
        assert (await connection.scalars(find)).all() == []
        await connection.execute(text(f"CREATE SCHEMA {quoted}"))
        await connection.execute(text(f"CREATE TABLE {quoted}.oban_jobs ()"))
        await connection.execute(text(f"SET LOCAL search_path = pg_catalog, {quoted}"))
        assert (await connection.scalars(find)).all() == ([name] if names else [])
