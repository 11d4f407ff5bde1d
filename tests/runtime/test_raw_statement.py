"""A statement that is sent often returns the same rows in each way, also after a failure."""

from collections.abc import AsyncIterator

import psycopg
import pytest
from sqlalchemy import Integer, Text, bindparam, func, literal, make_url, select, text
from sqlalchemy.exc import DBAPIError

from oban_sqla import Job
from oban_sqla.dsn import database_url
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.raw_statement import RawStatement
from oban_sqla.statements.acknowledge import acknowledge, outcomes


@pytest.fixture(params=["psycopg", "asyncpg"])
async def database(
    request: pytest.FixtureRequest, postgres_dsn: str, prefix: str
) -> AsyncIterator[Database]:
    if request.param == "asyncpg":
        pytest.importorskip("asyncpg")
    url = make_url(database_url(postgres_dsn)).set(drivername=f"postgresql+{request.param}")
    database = Database(url, prefix)
    yield database
    await database.dispose()


async def test_values_are_bound_and_constants_kept(database: Database) -> None:
    given = bindparam("given", type_=Text)
    statement = select(given.label("a"), func.concat(given, literal(" 100% %(given)s", Text)))
    prepared = RawStatement(database, statement)
    for value in ("x", "'; %s", "%(given)s"):
        assert [tuple(row) for row in await prepared.fetch({"given": value})] == [
            (value, f"{value} 100% %(given)s")
        ]


async def test_operators_with_a_percent_sign_are_sent_as_they_are(database: Database) -> None:
    statement = select(bindparam("given", type_=Integer) % 4)
    assert [tuple(row) for row in await RawStatement(database, statement).fetch({"given": 7})] == [
        (3,)
    ]


async def test_it_finds_the_tables_of_its_schema(database: Database) -> None:
    assert await RawStatement(database, acknowledge()).fetch(outcomes([])) == []
    assert await RawStatement(database, select(Job.id)).fetch({}) == []


async def test_it_goes_on_after_a_failure(database: Database) -> None:
    prepared = RawStatement(database, select(12 // bindparam("given", type_=Integer)))
    for _ in range(2):
        with pytest.raises((psycopg.errors.DivisionByZero, DBAPIError)):
            await prepared.fetch({"given": 0})
        assert [tuple(row) for row in await prepared.fetch({"given": 4})] == [(3,)]
        assert [tuple(row) for row in await prepared.fetch({"given": 6})] == [(2,)]


async def test_a_statement_behind_another_one_is_prepared_at_once(database: Database) -> None:
    """It is long, and the server would plan it anew five times on each connection."""
    texts = text("SELECT statement FROM pg_prepared_statements").columns(statement=Text)
    behind = select(literal("lock", Text).label("behind"))
    prepared = RawStatement(database, texts, behind=behind)
    first = await prepared.fetch({})
    assert any("behind" in row[0] for row in first) or database.engine.dialect.driver == "asyncpg"
