"""A statement that is sent over and over: the same rows by each way, and on after a failure."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from sqlalchemy import Integer, Text, bindparam, func, literal, make_url, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job
from oban_sqla.dsn import database_url
from oban_sqla.runtime import database as database_module
from oban_sqla.runtime.database import ANSWER_TIMEOUT, Database
from oban_sqla.runtime.prepared import Prepared
from oban_sqla.statements.acknowledge import acknowledge, outcomes
from tests.listening import PATIENCE
from tests.runtime.conftest import locked


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
    prepared = Prepared(database, statement)
    for text in ("x", "'; %s", "%(given)s"):
        assert [tuple(row) for row in await prepared.fetch({"given": text})] == [
            (text, f"{text} 100% %(given)s")
        ]


async def test_operators_with_a_percent_sign_are_sent_as_they_are(database: Database) -> None:
    statement = select(bindparam("given", type_=Integer) % 4)
    assert [tuple(row) for row in await Prepared(database, statement).fetch({"given": 7})] == [(3,)]


async def test_it_finds_the_tables_of_its_schema(database: Database) -> None:
    assert await Prepared(database, acknowledge()).fetch(outcomes([])) == []
    assert await Prepared(database, select(Job.id)).fetch({}) == []


async def test_it_goes_on_after_a_failure(database: Database) -> None:
    prepared = Prepared(database, select(12 // bindparam("given", type_=Integer)))
    for _ in range(2):
        with pytest.raises((psycopg.errors.DivisionByZero, DBAPIError)):
            await prepared.fetch({"given": 0})
        assert [tuple(row) for row in await prepared.fetch({"given": 4})] == [(3,)]
        assert [tuple(row) for row in await prepared.fetch({"given": 6})] == [(2,)]


async def test_what_does_not_take_turns_waits_for_no_other(
    database: Database, engine: AsyncEngine, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "TURN", ANSWER_TIMEOUT)
    one = select(literal(1))
    async with locked(engine, prefix) as blocks:
        waiting = asyncio.create_task(database.fetch(select(Job.id).with_for_update()))
        await blocks()
        async with asyncio.timeout(PATIENCE):
            rows = await Prepared(database, one, in_turn=False).fetch({})
        assert [tuple(row) for row in rows] == [(1,)]
        assert not waiting.done()
    await waiting
