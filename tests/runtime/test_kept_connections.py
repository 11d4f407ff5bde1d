"""The connections that a node keeps: few, shared fairly, and no failed ones."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import event, func, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, Oban
from oban_sqla.runtime import kept_connections as module
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.engine import is_closed
from tests.conftest import StartOban, Tune
from tests.databases import async_engine
from tests.listening import PATIENCE, hear
from tests.runtime.conftest import locked, until
from tests.runtime.workers import Quick

PID = select(func.pg_backend_pid())


async def pids(*fetching: Any) -> set[int]:
    return {pid for ((pid,),) in await asyncio.gather(*fetching)}


async def three_at_once(database: Database) -> None:
    sleep = text("SELECT pg_sleep(0.2)")
    await asyncio.gather(*(database.fetch(sleep, at_once=True) for _ in range(3)))


async def test_quick_statements_share_one_connection(database: Database, tune: Tune) -> None:
    tune(module, GROW_AFTER=PATIENCE)
    assert len(await pids(*(database.fetch(PID) for _ in range(50)))) == 1


async def test_a_statement_that_waits_for_long_gets_another_connection(
    database: Database, engine: AsyncEngine, prefix: str
) -> None:
    async with locked(engine, prefix) as blocks:
        waiting = asyncio.create_task(database.fetch(select(Job.id).with_for_update()))
        await blocks()
        assert await database.fetch(select(1)) == [(1,)]
        assert not waiting.done()
    await waiting


async def test_an_urgent_statement_gets_another_connection_at_once(
    database: Database, engine: AsyncEngine, prefix: str, tune: Tune
) -> None:
    tune(module, GROW_AFTER=3600.0)
    async with locked(engine, prefix) as blocks:
        waiting = asyncio.create_task(database.fetch(select(Job.id).with_for_update()))
        await blocks()
        async with asyncio.timeout(PATIENCE):
            assert await database.fetch(select(1), at_once=True) == [(1,)]
        assert not waiting.done()
    await waiting


async def test_waiting_statements_are_served_in_order(database: Database, tune: Tune) -> None:
    tune(module, GROW_AFTER=PATIENCE)
    served: list[int] = []

    async def fetch(number: int) -> None:
        await database.fetch(select(1))
        served.append(number)

    await asyncio.gather(*(fetch(number) for number in range(30)))
    assert served == list(range(30))


async def test_a_failed_connection_is_not_used_again(database: Database) -> None:
    ((before,),) = await database.fetch(PID)
    with pytest.raises(DBAPIError):
        await database.fetch(text("SELECT 1/0"))
    ((after,),) = await database.fetch(PID)
    assert before != after


async def test_connections_are_recycled_as_the_pool_says(postgres_dsn: str, prefix: str) -> None:
    engine = async_engine(postgres_dsn, prefix, pool_recycle=0)
    database = Database(engine, prefix)
    database.keep_connections()
    assert len(await pids(*(database.fetch(PID) for _ in range(5)))) == 5
    await database.release_connections()
    await engine.dispose()


@pytest.mark.parametrize("answered", [True, False])
async def test_free_connections_are_not_used_after_one_got_no_answer(
    database: Database, answered: bool, tune: Tune
) -> None:
    """If the server has vanished, a statement would wait on each of them in turn."""
    tune(module, KEEP=3600.0)
    error = DBAPIError("", {}, errors.DivisionByZero()) if answered else TimeoutError()

    async def free_and_fail() -> None:
        async with database.statement(), database.statement(at_once=True) as other:
            free.append((await other.execute(PID)).scalar_one())
        # The first connection is free as well, so the next block uses the one that was freed last.
        async with database.statement():
            raise error

    free: list[int] = []
    with pytest.raises(type(error)):
        await free_and_fail()
    assert (await pids(database.fetch(PID)) == {*free}) is answered


async def test_a_cancelled_waiting_statement_takes_no_connection(
    database: Database, engine: AsyncEngine, prefix: str, tune: Tune
) -> None:
    tune(module, GROW_AFTER=PATIENCE)
    async with locked(engine, prefix) as blocks:
        waiting = asyncio.create_task(database.fetch(select(Job.id).with_for_update()))
        await blocks()
        others = [asyncio.create_task(database.fetch(PID)) for _ in range(5)]
        await asyncio.sleep(0)
        for other in others[:4]:
            other.cancel()
    await waiting
    await asyncio.wait(others)
    assert [other.cancelled() for other in others] == [True] * 4 + [False]
    assert await database.fetch(select(1)) == [(1,)]


async def test_unused_connections_are_closed_except_the_last(
    engine: AsyncEngine, prefix: str, tune: Tune
) -> None:
    tune(module, KEEP=0.05)
    database = Database(engine, prefix)
    database.keep_connections()
    await three_at_once(database)
    pool: Any = engine.pool
    await until(lambda: pool.checkedout() == 1)
    ((kept,),) = await database.fetch(PID)
    # Without a timer that could still give it up.
    assert pool.checkedout() == 1
    assert await database.fetch(PID) == [(kept,)]
    await database.release_connections()
    assert pool.checkedout() == 0


async def test_a_pool_of_one_connection_gets_its_connection_back(
    postgres_dsn: str, prefix: str, tune: Tune
) -> None:
    tune(module, KEEP=0.05)
    engine = async_engine(postgres_dsn, prefix, pool_size=1, max_overflow=0)
    database = Database(engine, prefix)
    database.keep_connections()
    await database.fetch(PID)
    pool: Any = engine.pool
    await until(lambda: pool.checkedout() == 0)
    await database.release_connections()
    await engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_an_unused_connection_that_the_server_closed_is_not_used(
    postgres_dsn: str, prefix: str, tune: Tune, driver: str
) -> None:
    tune(module, KEEP=0.0)
    engine = async_engine(postgres_dsn, prefix, driver)
    database = Database(engine, prefix)
    database.keep_connections()
    async with database.kept_or_pooled(at_once=False) as kept:
        before = (await kept.execute(PID)).scalar_one()
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as other:
        await other.execute("SELECT pg_terminate_backend(%s)", [before])
    # asyncpg reads the last message before it hears of the end.
    await until(lambda: is_closed(kept))
    ((after,),) = await database.fetch(PID)
    assert before != after
    await database.release_connections()
    await engine.dispose()


async def test_a_statement_gets_a_connection_after_the_task_that_connects_was_cancelled(
    database: Database,
) -> None:
    fetching = asyncio.create_task(database.fetch(PID))
    await asyncio.sleep(0)
    (connecting,) = (task for task in asyncio.all_tasks() if task.get_name() == "oban-connection")
    # As `asyncio.run()` does at its end, before the first step of the task.
    connecting.cancel()
    async with asyncio.timeout(PATIENCE):
        await fetching


async def test_a_connection_in_use_at_the_stop_goes_back_to_the_pool(
    database: Database, engine: AsyncEngine
) -> None:
    async with database.kept_or_pooled(at_once=True) as connection:
        await database.release_connections()
        await connection.execute(PID)
    async with asyncio.timeout(PATIENCE):
        await until(lambda: engine.pool.checkedout() == 0)  # type: ignore[attr-defined]


async def test_enqueues_beside_a_node_use_its_connections(
    start: StartOban, engine: AsyncEngine
) -> None:
    taken: list[object] = []
    oban = await start(queues={"other": 1}, notify="poll", poll_interval=3600.0)
    event.listen(engine.sync_engine, "checkout", lambda *given: taken.append(given))
    for number in range(10):
        await oban.enqueue(Quick.new({"number": number}))
    # The services that have just started take some, too.
    assert len(taken) < 5


async def test_without_a_server_waiting_statements_fail(prefix: str) -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/nowhere", prefix)
    database.keep_connections()
    told = await asyncio.gather(
        *(database.fetch(select(1)) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(error, DBAPIError) for error in told)
    await database.release_connections()


async def test_a_node_has_three_connections_however_many_queues(
    postgres_dsn: str, prefix: str, tune: Tune
) -> None:
    """One connection for LISTEN, one for the heartbeat thread, and one for everything else."""
    tune(module, GROW_AFTER=PATIENCE)
    url = make_url(postgres_dsn).update_query_dict({"application_name": prefix})
    queues = {f"queue {number}": 5 for number in range(8)}
    # Without a leader, whose transactions may take one more.
    oban = Oban(url, prefix=prefix, queues=queues, leadership=False)
    with hear(oban, "claim_stop") as claims:
        async with oban:
            await claims.until(lambda events: {stop.queue for stop in events} == queues.keys())
            count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            async with await psycopg.AsyncConnection.connect(postgres_dsn) as other:
                assert await (await other.execute(count, [prefix])).fetchone() == (3,)


class TestSharedTransaction:
    async def test_is_on_the_kept_connection(self, database: Database, engine: AsyncEngine) -> None:
        ((kept,),) = await database.fetch(PID)
        async with database.shared_transaction() as connection:
            assert await connection.scalar(PID) == kept
        assert await pids(database.fetch(PID)) == {kept}

    async def test_commits_all_or_nothing(self, database: Database) -> None:
        insert = text(f'INSERT INTO "{database.prefix}".users (name) VALUES (:name)')

        async def fail() -> None:
            async with database.shared_transaction() as connection:
                await connection.execute(insert, {"name": "ann"})
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        async with database.shared_transaction() as connection:
            await connection.execute(insert, {"name": "bob"})
            await connection.execute(insert, {"name": "eve"})
        names = text(f'SELECT array_agg(name ORDER BY id) FROM "{database.prefix}".users')
        assert await database.fetch(names) == [(["bob", "eve"],)]

    async def test_leaves_the_next_statement_a_transaction_of_its_own(
        self, database: Database
    ) -> None:
        async with database.shared_transaction() as connection:
            await connection.execute(select(1))
        await database.fetch(text("CREATE TEMPORARY TABLE mine ()"))
        await database.fetch(text("VACUUM mine"))  # refused within a transaction

    async def test_a_refused_statement_keeps_the_connection(self, database: Database) -> None:
        ((kept,),) = await database.fetch(PID)
        with pytest.raises(DBAPIError, match="division by zero"):
            async with database.shared_transaction() as connection:
                await connection.execute(text("SELECT 1/0"))
        assert await pids(database.fetch(PID)) == {kept}
        await database.fetch(text("CREATE TEMPORARY TABLE mine ()"))
        await database.fetch(text("VACUUM mine"))

    async def test_a_lost_connection_is_given_up(
        self, database: Database, postgres_dsn: str
    ) -> None:
        ((kept,),) = await database.fetch(PID)

        async def lose() -> None:
            async with database.shared_transaction() as connection:
                async with await psycopg.AsyncConnection.connect(postgres_dsn) as other:
                    await other.execute("SELECT pg_terminate_backend(%s)", [kept])
                await connection.execute(PID)

        with pytest.raises(DBAPIError):
            await lose()
        assert await pids(database.fetch(PID)) != {kept}
