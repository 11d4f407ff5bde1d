"""Single enqueues of one process at the same time share statements and a connection."""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, Oban, Worker
from oban_sqla.events import Enqueueing
from oban_sqla.runtime import group_commit
from oban_sqla.runtime.direct_connection import DirectConnection
from tests.conftest import Tune
from tests.runtime.conftest import until

BLOCKING = """
CREATE FUNCTION {schema}.block() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.args ? 'blocked' THEN PERFORM pg_advisory_xact_lock(hashtext({name})); END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER block BEFORE INSERT ON {schema}.oban_jobs
    FOR EACH ROW EXECUTE FUNCTION {schema}.block();
"""
UNBLOCKING = "DROP TRIGGER block ON {schema}.oban_jobs; DROP FUNCTION {schema}.block()"


class Send(Worker, name="tests.group_commit.Send"):
    async def process(self, job: Job) -> None: ...


class Once(Worker, name="tests.group_commit.Once", unique=True):
    async def process(self, job: Job) -> None: ...


@pytest.fixture(autouse=True)
def patient(tune: Tune) -> None:
    """Count calls as a rush even on a slow machine."""
    tune(group_commit, LINGER=1.0)


@pytest.fixture
async def oban(each_engine: AsyncEngine) -> AsyncIterator[Oban]:
    oban = Oban(each_engine)
    yield oban
    await oban.stop()
    assert each_engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.fixture
def checkouts(each_engine: AsyncEngine) -> list[Any]:
    """One entry for each connection that is taken from the pool."""
    taken: list[Any] = []
    event.listen(each_engine.sync_engine, "checkout", lambda *args: taken.append(args))
    return taken


@pytest.fixture
async def outside(postgres_dsn: str, prefix: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        path = sql.SQL("SET search_path TO {}").format(sql.Identifier(prefix))
        await connection.execute(path)
        yield connection


@pytest.fixture
async def blocked(outside: psycopg.AsyncConnection, prefix: str) -> AsyncIterator[asyncio.Event]:
    """While this is set, inserts of jobs whose arguments say so wait in the database."""
    names = {"schema": sql.Identifier(prefix), "name": sql.Literal(prefix)}
    await outside.execute(sql.SQL(BLOCKING).format(**names))
    await outside.execute("SELECT pg_advisory_lock(hashtext(%s))", [prefix])
    go_on = asyncio.Event()

    async def unlock() -> None:
        await go_on.wait()
        await outside.execute("SELECT pg_advisory_unlock(hashtext(%s))", [prefix])

    unlocking = asyncio.create_task(unlock())
    yield go_on
    go_on.set()
    await unlocking
    await outside.execute(sql.SQL(UNBLOCKING).format(**names))


async def rush(oban: Oban) -> None:
    """Make enough calls in a row that the connection is kept."""
    for _ in range(group_commit.RUSH + 1):
        await oban.enqueue(Send.new())


async def numbers(outside: psycopg.AsyncConnection) -> list[Any]:
    cursor = await outside.execute(
        "SELECT args -> 'n' FROM oban_jobs WHERE args ? 'n' ORDER BY (args -> 'n')::int"
    )
    return [row[0] for row in await cursor.fetchall()]


async def is_blocked(outside: psycopg.AsyncConnection) -> int:
    """Wait until a statement waits for the lock, and return its server process."""
    found: list[int] = []

    async def look() -> bool:
        cursor = await outside.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            " AND objid::bigint = hashtext(current_schema)::bigint & 4294967295"
        )
        found.extend(int(row[0]) for row in await cursor.fetchall())
        return bool(found)

    await until(look)
    return found[0]


async def test_calls_at_once_share_statements(
    oban: Oban, checkouts: list[Any], outside: psycopg.AsyncConnection
) -> None:
    jobs = [Send.new({"n": n}) for n in range(200)]

    async def enqueue(job: Job) -> None:
        await oban.enqueue(job)
        cursor = await outside.execute("SELECT args FROM oban_jobs WHERE id = %s", [job.id])
        assert await cursor.fetchone() == (job.args,), "it is committed when the call returns"

    await asyncio.gather(*map(enqueue, jobs))
    assert await numbers(outside) == [*range(200)]
    assert len({job.id for job in jobs}) == 200
    assert all(job.inserted_at == job.scheduled_at for job in jobs)
    assert len(checkouts) < 20


async def test_calls_in_a_rush_keep_a_connection(
    oban: Oban, each_engine: AsyncEngine, checkouts: list[Any]
) -> None:
    await rush(oban)
    before = len(checkouts)
    await until(lambda: not each_engine.pool.checkedout())  # type: ignore[attr-defined]
    for _ in range(3):
        await rush(oban)
    assert len(checkouts) < before + 3 * group_commit.RUSH


async def test_a_single_call_leaves_no_connection_out(oban: Oban, each_engine: AsyncEngine) -> None:
    await oban.enqueue(Send.new())
    assert each_engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", [[0], [7], [19], [3, 11, 12], range(20)])
async def test_a_job_that_the_database_refuses_fails_its_own_call(
    oban: Oban, outside: psycopg.AsyncConnection, bad: Any
) -> None:
    await rush(oban)
    jobs = [Send.new({"n": n}) for n in range(20)]
    for n in bad:
        vars(jobs[n])["max_attempts"] = 0
    results = await asyncio.gather(*map(oban.enqueue, jobs), return_exceptions=True)
    for n, result in enumerate(results):
        if n in bad:
            assert isinstance(result, DBAPIError)
            assert "positive_max_attempts" in str(result)
        else:
            assert result is jobs[n]
    assert await numbers(outside) == [n for n in range(20) if n not in bad]


async def test_a_job_that_cannot_be_encoded_fails_its_own_call(
    oban: Oban, outside: psycopg.AsyncConnection
) -> None:
    await rush(oban)
    jobs = [Send.new({"n": n}) for n in range(5)]
    jobs[2].args["bad"] = float("nan")
    results = await asyncio.gather(*map(oban.enqueue, jobs), return_exceptions=True)
    assert isinstance(results[2], ValueError)
    assert "args['bad']" in str(results[2])
    assert await numbers(outside) == [0, 1, 3, 4]


async def test_unique_jobs_at_once_are_one(oban: Oban, outside: psycopg.AsyncConnection) -> None:
    await rush(oban)
    jobs = [Once.new({"n": n % 2}) for n in range(20)]
    await asyncio.gather(*map(oban.enqueue, jobs))
    assert await numbers(outside) == [0, 1]
    assert sum(job.conflict for job in jobs) == 18
    assert len({job.id for job in jobs}) == 2


async def test_a_call_cancelled_before_its_job_is_sent_inserts_nothing(
    oban: Oban,
    outside: psycopg.AsyncConnection,
    blocked: asyncio.Event,
    tune: Tune,
) -> None:
    tune(group_commit, PATIENCE=60.0)
    await rush(oban)
    first = asyncio.create_task(oban.enqueue(Send.new({"n": 1, "blocked": True})))
    await is_blocked(outside)
    second, third = (asyncio.create_task(oban.enqueue(Send.new({"n": n}))) for n in (2, 3))
    await asyncio.sleep(0)
    second.cancel()
    blocked.set()
    await asyncio.wait([first, second, third])
    assert second.cancelled()
    assert await numbers(outside) == [1, 3]


async def test_a_call_cancelled_later_takes_no_other_one_along(
    oban: Oban, outside: psycopg.AsyncConnection, blocked: asyncio.Event
) -> None:
    await rush(oban)
    jobs = [Send.new({"n": n, "blocked": True}) for n in range(3)]
    _, *calls = (asyncio.create_task(oban.enqueue(job)) for job in (Send.new(), *jobs))
    await is_blocked(outside)
    calls[1].cancel()
    await asyncio.wait([calls[1]])
    assert calls[1].cancelled()
    blocked.set()
    await asyncio.gather(calls[0], calls[2])
    assert await numbers(outside) == [0, 1, 2]
    assert jobs[1].id, "the job knows that it was inserted"


async def test_calls_do_not_wait_long_for_a_statement_that_does(
    oban: Oban, outside: psycopg.AsyncConnection, blocked: asyncio.Event
) -> None:
    await rush(oban)
    slow = asyncio.create_task(oban.enqueue(Send.new({"n": 0, "blocked": True})))
    await is_blocked(outside)
    async with asyncio.timeout(20):
        await asyncio.gather(*(oban.enqueue(Send.new({"n": n})) for n in range(1, 6)))
        await oban.enqueue(Send.new({"n": 6}))
    assert not slow.done()
    assert await numbers(outside) == [1, 2, 3, 4, 5, 6]
    blocked.set()
    await slow


async def test_a_lost_connection_fails_the_calls_under_way_and_no_others(
    oban: Oban,
    outside: psycopg.AsyncConnection,
    blocked: asyncio.Event,
    tune: Tune,
) -> None:
    tune(group_commit, PATIENCE=60.0)
    await rush(oban)
    jobs = [Send.new({"n": n, "blocked": True}) for n in range(3)]
    _, *sent = (asyncio.create_task(oban.enqueue(job)) for job in (Send.new(), *jobs))
    pid = await is_blocked(outside)
    waiting = [asyncio.create_task(oban.enqueue(Send.new({"n": n}))) for n in (3, 4)]
    await asyncio.sleep(0)
    await outside.execute("SELECT pg_terminate_backend(%s)", [pid])
    results = await asyncio.gather(*sent, return_exceptions=True)
    assert all(isinstance(result, DBAPIError) for result in results)
    await asyncio.gather(*waiting)
    await rush(oban)
    assert await numbers(outside) == [3, 4]


async def test_a_connection_that_became_read_only_is_kept_no_longer(
    oban: Oban, each_engine: AsyncEngine, outside: psycopg.AsyncConnection
) -> None:
    """After a failover, the connection leads to a standby."""
    if each_engine.dialect.driver != "psycopg":
        pytest.skip("another driver's error is SQLAlchemy's affair")
    taken: list[psycopg.AsyncConnection] = []

    def note(dbapi_connection: Any, *args: Any) -> None:
        taken.append(dbapi_connection.driver_connection)
        if len(taken) == group_commit.RUSH + 1:
            dbapi_connection.cursor().execute("SET default_transaction_read_only = on")
            dbapi_connection.commit()

    event.listen(each_engine.sync_engine, "checkout", note)
    for n in range(group_commit.RUSH + 3):
        await oban.enqueue(Send.new({"n": n}))
    await asyncio.gather(*(oban.enqueue(Send.new({"n": n})) for n in range(20, 25)))
    assert await numbers(outside) == [*range(group_commit.RUSH + 3), *range(20, 25)]
    await until(lambda: taken[group_commit.RUSH].closed)


async def test_a_database_that_is_not_there_fails_each_call() -> None:
    oban = Oban("postgresql://nobody@127.0.0.1:1/none")
    calls = (oban.enqueue(Send.new()) for _ in range(3 * group_commit.RUSH))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, DBAPIError) for result in results)
    await oban.stop()


async def test_each_call_is_an_event_of_its_own(oban: Oban) -> None:
    stops: list[Any] = []

    def note(_: Any, stop: Any) -> None:
        stops.append(stop)

    event.listen(Enqueueing, "enqueue_stop", note)
    try:
        await rush(oban)
        await asyncio.gather(*(oban.enqueue(Send.new()) for _ in range(10)))
    finally:
        event.remove(Enqueueing, "enqueue_stop", note)
    assert len(stops) == group_commit.RUSH + 11
    assert all(len(stop.start.jobs) == 1 and stop.start.jobs[0].id for stop in stops)


async def test_an_event_loop_that_ends_closes_the_kept_connection(
    postgres_dsn: str, prefix: str
) -> None:
    script = f"""
        import asyncio
        from oban_sqla import Job, Oban, Worker

        class Send(Worker, name="app.Send"):
            async def process(self, job: Job) -> None: ...

        async def main():
            oban = Oban({postgres_dsn!r}, prefix={prefix!r})
            for _ in range(30):
                await oban.enqueue(Send.new())

        asyncio.run(main())
    """
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""


async def test_a_single_call_in_a_rush_sends_its_job_itself(
    oban: Oban, outside: psycopg.AsyncConnection, blocked: asyncio.Event
) -> None:
    await rush(oban)
    call = asyncio.create_task(oban.enqueue(Send.new({"n": 0, "blocked": True})))
    await is_blocked(outside)
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    for n in range(1, group_commit.RUSH + 3):
        await oban.enqueue(Send.new({"n": n}))
    blocked.set()
    assert await numbers(outside) == [*range(1, group_commit.RUSH + 3)]


async def test_a_single_call_in_a_rush_fails_with_its_connection(
    oban: Oban, outside: psycopg.AsyncConnection, blocked: asyncio.Event
) -> None:
    await rush(oban)
    call = asyncio.create_task(oban.enqueue(Send.new({"n": 0, "blocked": True})))
    pid = await is_blocked(outside)
    await outside.execute("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(DBAPIError):
        await call
    await rush(oban)
    assert await numbers(outside) == []


async def test_the_loss_of_a_connection_under_a_call_leaves_no_other_one_out(
    oban: Oban,
    each_engine: AsyncEngine,
    outside: psycopg.AsyncConnection,
    blocked: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task looks at the lost connection before the call does."""
    if each_engine.dialect.driver != "psycopg":
        pytest.skip("another driver's connection is not released before the call goes on")
    release = DirectConnection.release

    def wake_up_first(self: DirectConnection) -> None:
        release(self)
        group._wake_up()

    await rush(oban)
    call = asyncio.create_task(oban.enqueue(Send.new({"n": 0, "blocked": True})))
    pid = await is_blocked(outside)
    (group,) = oban._enqueuer._groups.values()
    monkeypatch.setattr(DirectConnection, "release", wake_up_first)
    await outside.execute("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(DBAPIError):
        await call
    await rush(oban)
    assert await numbers(outside) == []


async def test_a_call_whose_connection_is_given_up_fails(
    oban: Oban, each_engine: AsyncEngine, outside: psycopg.AsyncConnection, blocked: asyncio.Event
) -> None:
    """Something cancels the tasks of the event loop, but not the call."""
    if each_engine.dialect.driver != "psycopg":
        pytest.skip("SQLAlchemy waits for the statements of other drivers")
    await rush(oban)
    call = asyncio.create_task(oban.enqueue(Send.new({"n": 0, "blocked": True})))
    await is_blocked(outside)
    (serving,) = (task for task in asyncio.all_tasks() if task.get_name() == "oban-enqueue")
    serving.cancel()
    with pytest.raises((DBAPIError, psycopg.OperationalError)):
        await call
    await asyncio.wait([serving])


async def test_a_call_whose_statement_gets_no_answer_fails(
    oban: Oban, outside: psycopg.AsyncConnection, blocked: asyncio.Event, tune: Tune
) -> None:
    await rush(oban)
    tune(group_commit, ANSWER_TIMEOUT=0.5)
    with pytest.raises(TimeoutError):
        await oban.enqueue(Send.new({"n": 0, "blocked": True}))


async def test_a_kept_connection_that_the_server_has_closed_fails_no_call(
    oban: Oban, each_engine: AsyncEngine, outside: psycopg.AsyncConnection
) -> None:
    if each_engine.dialect.driver != "psycopg":
        pytest.skip("SQLAlchemy does not look at a connection before it sends a statement")
    taken: list[psycopg.AsyncConnection] = []

    def note(dbapi_connection: Any, *args: Any) -> None:
        taken.append(dbapi_connection.driver_connection)

    event.listen(each_engine.sync_engine, "checkout", note)
    await rush(oban)
    kept = taken[-1]
    await outside.execute("SELECT pg_terminate_backend(%s)", [kept.info.backend_pid])
    await until(lambda: kept.closed)
    for n in range(3):
        await oban.enqueue(Send.new({"n": n}))
    assert await numbers(outside) == [0, 1, 2]


async def test_a_prepared_statement_that_a_pooler_has_lost_ends_autocommit(
    oban: Oban, each_engine: AsyncEngine, outside: psycopg.AsyncConnection, monkeypatch: Any
) -> None:
    if each_engine.dialect.driver != "psycopg":
        pytest.skip("SQLAlchemy prepares the statements of other drivers")

    async def prepare_elsewhere(self: DirectConnection, text: bytes) -> bytes:
        return b"on_another_connection"

    monkeypatch.setattr(DirectConnection, "_prepare", prepare_elsewhere)
    for n in range(group_commit.RUSH + 3):
        await oban.enqueue(Send.new({"n": n}))
    assert await numbers(outside) == [*range(group_commit.RUSH + 3)]
    assert oban._database.in_transactions
