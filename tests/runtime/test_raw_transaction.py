"""A transaction returns the same rows in each way, and releases its locks before it raises."""

from typing import Any

import psycopg
import pytest
from sqlalchemy import Integer, bindparam, insert, select
from sqlalchemy.exc import DBAPIError

from oban_sqla import Job
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.raw_transaction import RawTransactions

REFUSED = (psycopg.errors.DivisionByZero, DBAPIError)

divided = select((12 // bindparam("given", type_=Integer)).label("result"))


async def workers_of(database: Database) -> list[Any]:
    return [worker for (worker,) in await database.fetch(select(Job.worker))]


def job(worker: str) -> Any:
    return insert(Job).values(worker=worker).returning(Job.id)


async def test_a_transaction_commits_at_the_end(any_database: Database) -> None:
    transactions = RawTransactions(any_database)
    async with transactions.begin() as fetches:
        (row,) = await fetches.fetch(divided, {"given": 4})
        assert row.result == 3
        await fetches.fetch(job("committed"))
        assert await workers_of(any_database) == []
    assert await workers_of(any_database) == ["committed"]


async def test_an_error_frees_the_locks_of_the_transaction(any_database: Database) -> None:
    transactions = RawTransactions(any_database)
    async with transactions.begin() as fetches:
        await fetches.fetch(job("kept"))
    locked = select(Job.id).with_for_update(nowait=True)

    async def fail() -> None:
        async with transactions.begin() as fetches:
            await fetches.fetch(locked)
            await fetches.fetch(job("dropped"))
            await fetches.fetch(divided, {"given": 0})

    for _ in range(3):
        with pytest.raises(REFUSED):
            await fail()
        assert len(await any_database.fetch(locked)) == 1
        assert await workers_of(any_database) == ["kept"]
        async with transactions.begin() as fetches:
            assert [tuple(row) for row in await fetches.fetch(divided, {"given": 6})] == [(2,)]


async def test_an_error_of_the_caller_rolls_back(any_database: Database) -> None:
    transactions = RawTransactions(any_database)

    async def fail() -> None:
        async with transactions.begin() as fetches:
            await fetches.fetch(job("dropped"))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await workers_of(any_database) == []
