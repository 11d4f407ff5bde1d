"""A statement that is sent often returns the same rows in each way, also after a failure."""

import psycopg
import pytest
from sqlalchemy import Integer, Text, bindparam, func, literal, select, text
from sqlalchemy.exc import DBAPIError

from oban_sqla import Job
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.raw_statement import RawStatement
from oban_sqla.statements.acknowledge import acknowledge, outcomes


async def test_values_are_bound_and_constants_kept(any_database: Database) -> None:
    given = bindparam("given", type_=Text)
    statement = select(given.label("a"), func.concat(given, literal(" 100% %(given)s", Text)))
    prepared = RawStatement(any_database, statement)
    for value in ("x", "'; %s", "%(given)s"):
        assert [tuple(row) for row in await prepared.fetch({"given": value})] == [
            (value, f"{value} 100% %(given)s")
        ]


async def test_operators_with_a_percent_sign_are_sent_unchanged(any_database: Database) -> None:
    statement = select(bindparam("given", type_=Integer) % 4)
    assert [
        tuple(row) for row in await RawStatement(any_database, statement).fetch({"given": 7})
    ] == [(3,)]


async def test_a_statement_finds_the_tables_of_its_schema(any_database: Database) -> None:
    assert await RawStatement(any_database, acknowledge()).fetch(outcomes([])) == []
    assert await RawStatement(any_database, select(Job.id)).fetch({}) == []


async def test_a_statement_can_be_sent_after_a_failure(any_database: Database) -> None:
    prepared = RawStatement(any_database, select(12 // bindparam("given", type_=Integer)))
    for _ in range(2):
        with pytest.raises((psycopg.errors.DivisionByZero, DBAPIError)):
            await prepared.fetch({"given": 0})
        assert [tuple(row) for row in await prepared.fetch({"given": 4})] == [(3,)]
        assert [tuple(row) for row in await prepared.fetch({"given": 6})] == [(2,)]


async def test_a_statement_behind_another_one_is_prepared_at_once(any_database: Database) -> None:
    """The statement is long, and the server would plan it anew five times on each connection."""
    texts = text("SELECT statement FROM pg_prepared_statements").columns(statement=Text)
    behind = select(literal("lock", Text).label("behind"))
    prepared = RawStatement(any_database, texts, behind=behind)
    first = await prepared.fetch({})
    assert (
        any("behind" in row[0] for row in first) or any_database.engine.dialect.driver == "asyncpg"
    )


async def test_a_kept_connection_also_serves_sqlalchemy(any_database: Database) -> None:
    raw = RawStatement(any_database, select(bindparam("given", type_=Integer)))
    any_database.keep_connections()
    try:
        for n in range(8):
            assert [tuple(row) for row in await raw.fetch({"given": n})] == [(n,)]
            assert [tuple(row) for row in await any_database.fetch(select(literal(n)))] == [(n,)]
    finally:
        await any_database.release_connections()


async def test_a_statement_is_prepared_again_after_a_rollback(any_database: Database) -> None:
    """psycopg deallocates all statements after a rollback, also those that it does not know of."""

    async def roll_back() -> None:
        async with any_database.shared_transaction() as connection:
            # Often enough for psycopg to prepare it.
            for _ in range(8):
                await connection.execute(select(literal(1)))
            await connection.execute(text("SELECT 1 / 0"))

    raw = RawStatement(any_database, select(bindparam("given", type_=Integer)))
    any_database.keep_connections()
    try:
        for n in range(8):
            assert [tuple(row) for row in await raw.fetch({"given": n})] == [(n,)]
            with pytest.raises(DBAPIError):
                await roll_back()
        assert not any_database.in_transactions
    finally:
        await any_database.release_connections()
