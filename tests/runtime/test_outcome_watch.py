"""All waiters of an event loop share their queries, LISTEN, and one connection of the pool."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import NullPool, event, inspect
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, Oban
from oban_sqla.errors import SchemaMissingError, UnreadableJobError
from oban_sqla.runtime import notifier, outcome_watch
from oban_sqla.runtime.raw_statement import RawStatement
from oban_sqla.statements.announce import DONE, about
from tests.conftest import Add, StartOban, Tune
from tests.databases import async_engine
from tests.factories import JobFactory
from tests.listening import PATIENCE, hear
from tests.proxy import Proxy
from tests.runtime.conftest import until
from tests.runtime.workers import Quick

# With these intervals, a watch finds nothing by a full query within the patience of the tests.
NEVER: dict[str, Any] = {"poll_interval": 3600.0, "fallback_interval": 3600.0}

# Ends the connection that waits for a lock of this one.
END_BLOCKED = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))
"""


@dataclass
class Sent:
    """The ids that an engine looked for, and the ids that it told the nodes."""

    queries: list[list[int]] = field(default_factory=list)
    told: list[list[int]] = field(default_factory=list)
    told_before_query: int = 0
    statements: int = 0
    most_connections: int = 0


@pytest.fixture
def no_queries(tune: Tune) -> None:
    tune(outcome_watch, SOON=())


@pytest.fixture
async def own_engine(postgres_dsn: str, prefix: str) -> AsyncIterator[AsyncEngine]:
    """An engine for the waiters alone."""
    engine = async_engine(postgres_dsn, prefix, pool_timeout=PATIENCE)
    yield engine
    await engine.dispose()


@pytest.fixture
def client(own_engine: AsyncEngine, prefix: str) -> Oban:
    """An instance that only waits."""
    return Oban(own_engine, name="client", prefix=prefix, **NEVER)


@pytest.fixture
def sent(own_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    sent = Sent()
    engine = own_engine.sync_engine

    class Query(RawStatement):
        """A query of the jobs, which goes past the cursors of the driver."""

        async def fetch(self, params: Mapping[str, Any]) -> Sequence[Any]:
            rows = await super().fetch(params)
            sent.statements += 1
            sent.queries.append(list(params["ids"]))
            return rows

    def note_statement(
        connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any
    ) -> None:
        sent.statements += 1
        for news in json.loads(parameters.get("news", "[]")):
            sent.told.append(news["payload"]["ids"])
            sent.told_before_query = len(sent.queries)

    def note_connection(*args: Any) -> None:
        sent.most_connections = max(sent.most_connections, engine.pool.checkedout())  # type: ignore[attr-defined]

    event.listen(engine, "after_cursor_execute", note_statement)
    event.listen(engine, "checkout", note_connection)
    monkeypatch.setattr(outcome_watch, "RawStatement", Query)
    yield sent
    event.remove(engine, "after_cursor_execute", note_statement)
    event.remove(engine, "checkout", note_connection)


@pytest.fixture
async def outside(postgres_dsn: str, prefix: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection of another process."""
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        await connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(prefix)))
        yield connection


async def finish(outside: psycopg.AsyncConnection, *ids: int) -> None:
    """End jobs without telling anybody."""
    await outside.execute(
        "UPDATE oban_jobs SET state = 'completed', completed_at = now() WHERE id = ANY(%s)",
        [list(ids)],
    )


async def announce(outside: psycopg.AsyncConnection, prefix: str, *ids: int) -> None:
    """Announce outcomes, like a node."""
    news = json.dumps({"ids": list(ids)})
    await outside.execute("SELECT pg_notify(%s, %s)", [f"{prefix}.oban_done", news])


def told(sent: Sent, *ids: int) -> Callable[[], bool]:
    """Wait until the nodes were told of these jobs, and the query after that was made."""

    def holds() -> bool:
        behind = sent.queries[sent.told_before_query :]
        return all({*ids} <= {id for part in parts for id in part} for parts in (sent.told, behind))

    return holds


def listening(oban: Oban) -> bool:
    return any(watch._notifier.listening for watch in oban._waiter._watches.values())


async def test_a_thousand_waiters_need_few_statements_and_one_connection(
    client: Oban, sent: Sent, start: StartOban
) -> None:
    node = await start(queues={"default": {"limit": 20, "paused": True}})
    jobs = await node.enqueue_many(Quick.new() for _ in range(1000))
    waiting = [asyncio.create_task(client.wait(job, timeout=60)) for job in jobs]
    await until(lambda: sum(map(len, sent.told)) == 1000)
    await node.resume_queue("default")
    done = await asyncio.gather(*waiting)
    assert [job.id for job in done] == [job.id for job in jobs]
    assert sent.statements < 500
    assert sent.most_connections == 1


async def test_a_pool_of_one_connection_is_enough(
    start: StartOban, postgres_dsn: str, prefix: str
) -> None:
    node = await start(queues={"default": 20})
    engine = async_engine(postgres_dsn, prefix, pool_size=1, max_overflow=0, pool_timeout=PATIENCE)
    oban = Oban(engine, name="client", prefix=prefix)
    jobs = await node.enqueue_many(Quick.new() for _ in range(100))
    await asyncio.gather(*(oban.wait(job, timeout=PATIENCE) for job in jobs))
    await engine.dispose()


async def test_news_wakes_only_the_waiter_that_it_names(
    client: Oban,
    sent: Sent,
    add: Add,
    outside: psycopg.AsyncConnection,
    prefix: str,
    no_queries: None,
) -> None:
    first, second = await add(JobFactory(executing=True), JobFactory(executing=True))
    waiting = [asyncio.create_task(client.wait(id)) for id in (first, second)]
    await until(told(sent, first, second))
    await finish(outside, first, second)
    for news in ('{"ids": [[], {}, null, "1"]}', '{"ids": 1}', "{}", "[]", "x"):
        await outside.execute("SELECT pg_notify(%s, %s)", [f"{prefix}.oban_done", news])
    await announce(outside, prefix, first, 4711)
    assert (await asyncio.wait_for(waiting[0], PATIENCE)).id == first
    assert sent.queries[-1] == [first]
    assert not waiting[1].done()
    await announce(outside, prefix, second)
    assert (await asyncio.wait_for(waiting[1], PATIENCE)).id == second
    assert sent.queries[-1] == [second]


async def test_waiters_of_one_job_share_a_look_and_get_an_instance_each(
    client: Oban,
    sent: Sent,
    add: Add,
    outside: psycopg.AsyncConnection,
    prefix: str,
    no_queries: None,
) -> None:
    (id,) = await add(JobFactory(executing=True, args={"deep": [1]}))
    waiting = [asyncio.create_task(client.wait(id)) for _ in range(50)]
    await until(told(sent, id))
    waiting += [asyncio.create_task(client.wait(id)) for _ in range(50)]
    queries = len(sent.queries)
    await until(lambda: len(sent.queries) > queries)
    await finish(outside, id)
    await announce(outside, prefix, id)
    jobs = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
    assert sent.told == [[id]]
    assert len({*map(inspect, jobs)}) == 100
    jobs[0].args["deep"].append(2)
    assert jobs[1].args == {"deep": [1]}


async def test_a_cancelled_waiter_cancels_no_other(
    client: Oban,
    sent: Sent,
    add: Add,
    outside: psycopg.AsyncConnection,
    prefix: str,
    no_queries: None,
) -> None:
    kept, left = await add(JobFactory(executing=True), JobFactory(executing=True))
    waiting = asyncio.create_task(client.wait(kept))
    leaving = [
        asyncio.create_task(client.wait_many([kept, left])),
        asyncio.create_task(client.wait(kept, timeout=0.01)),
    ]
    await until(told(sent, kept, left))
    leaving[0].cancel()
    errors = await asyncio.gather(*leaving, return_exceptions=True)
    assert [type(error) for error in errors] == [asyncio.CancelledError, TimeoutError]
    await finish(outside, kept, left)
    # No caller waits for the other job any more, so no query asks for it.
    await announce(outside, prefix, left, kept)
    assert (await asyncio.wait_for(waiting, PATIENCE)).id == kept
    assert sent.queries[-1] == [kept]


async def test_a_waiter_cancelled_twice_blocks_no_later_waiter(
    client: Oban, sent: Sent, add: Add, outside: psycopg.AsyncConnection, prefix: str
) -> None:
    (id,) = await add(JobFactory(executing=True))
    waiting = asyncio.create_task(client.wait(id))
    await until(told(sent, id))
    for _ in range(3):
        waiting.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([waiting])
    await finish(outside, id)
    assert (await client.wait(id, timeout=PATIENCE)).id == id
    await until(lambda: not client._waiter._stops)


async def test_many_ids_are_sent_in_several_notifications(
    client: Oban, sent: Sent, outside: psycopg.AsyncConnection, prefix: str, no_queries: None
) -> None:
    """A payload has less than 8,000 bytes, and these ids have 19 digits."""
    ids = range(2**63 - 701, 2**63 - 1)
    await outside.execute(
        "INSERT INTO oban_jobs (id, worker, state) OVERRIDING SYSTEM VALUE"
        " SELECT id, 'w', 'executing' FROM unnest(%s::bigint[]) id",
        [list(ids)],
    )
    waiting = asyncio.create_task(client.wait_many(ids))
    await until(told(sent, *ids))
    await finish(outside, *ids)
    for news in json.loads(about(DONE, ids)["news"]):
        payload = json.dumps(news["payload"])
        await outside.execute("SELECT pg_notify(%s, %s)", [f"{prefix}.oban_done", payload])
    assert [job.id for job in await asyncio.wait_for(waiting, PATIENCE)] == list(ids)
    assert len(sent.told) > 1


async def test_a_look_is_repeated_soon_for_outcomes_that_a_node_wrote_before_it_was_told(
    client: Oban, sent: Sent, add: Add, outside: psycopg.AsyncConnection
) -> None:
    (id,) = await add(JobFactory(executing=True))
    waiting = asyncio.create_task(client.wait(id))
    await until(told(sent, id))
    await finish(outside, id)
    assert (await asyncio.wait_for(waiting, PATIENCE)).id == id
    assert sent.told == [[id]]


async def test_a_full_query_reminds_the_nodes_and_finds_unannounced_outcomes(
    own_engine: AsyncEngine,
    sent: Sent,
    prefix: str,
    add: Add,
    outside: psycopg.AsyncConnection,
    no_queries: None,
) -> None:
    oban = Oban(own_engine, prefix=prefix, poll_interval=3600, fallback_interval=0.05)
    (id,) = await add(JobFactory(executing=True))
    waiting = asyncio.create_task(oban.wait(id))
    await until(lambda: sent.told.count([id]) >= 3)
    await finish(outside, id)
    assert (await asyncio.wait_for(waiting, PATIENCE)).id == id


async def test_a_long_fallback_interval_still_reminds_the_nodes_before_they_forget(
    client: Oban, sent: Sent, add: Add, tune: Tune, no_queries: None
) -> None:
    tune(outcome_watch, FORGOTTEN_AFTER=0.1)
    (id,) = await add(JobFactory(executing=True))
    waiting = asyncio.create_task(client.wait(id))
    await until(lambda: sent.told.count([id]) >= 3)
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_without_listen_waiters_poll_and_notify_no_node(
    own_engine: AsyncEngine,
    sent: Sent,
    prefix: str,
    add: Add,
    outside: psycopg.AsyncConnection,
    no_queries: None,
) -> None:
    oban = Oban(
        own_engine, prefix=prefix, notify="poll", poll_interval=0.02, fallback_interval=3600
    )
    (id,) = await add(JobFactory(executing=True))
    waiting = asyncio.create_task(oban.wait(id))
    await until(lambda: len(sent.queries) >= 5)
    await finish(outside, id)
    assert (await asyncio.wait_for(waiting, PATIENCE)).id == id
    assert sent.told == []


async def test_while_notifications_are_lost_waiters_poll(
    quick: None,
    proxy: Proxy,
    prefix: str,
    add: Add,
    outside: psycopg.AsyncConnection,
    tune: Tune,
    no_queries: None,
) -> None:
    tune(notifier, ECHO_TIMEOUT=0.1)
    proxy.deaf = True
    oban = Oban(proxy.dsn, prefix=prefix, poll_interval=0.05, fallback_interval=3600)
    (id,) = await add(JobFactory(executing=True))
    with hear(oban, "notifier_lost") as lost:
        waiting = asyncio.create_task(oban.wait(id))
        await lost.wait()
        await finish(outside, id)
        assert (await asyncio.wait_for(waiting, PATIENCE)).id == id
    await oban.stop()


class TestOutages:
    async def test_a_wait_survives_an_outage_and_hears_again(
        self,
        quick: None,
        proxy: Proxy,
        prefix: str,
        add: Add,
        outside: psycopg.AsyncConnection,
        no_queries: None,
        expect_errors: None,
    ) -> None:
        oban = Oban(proxy.dsn, prefix=prefix, **NEVER)
        first, second = await add(JobFactory(executing=True), JobFactory(executing=True))
        waiting = [asyncio.create_task(oban.wait(id)) for id in (first, second)]
        await until(lambda: listening(oban))
        with hear(oban, "notifier_lost") as lost, hear(oban, "notifier_restored") as restored:
            await proxy.refuse()
            proxy.cut()
            await lost.wait()
            # The query after the reconnect finds it.
            await finish(outside, first)
            await proxy.allow()
            await restored.wait()
            assert (await asyncio.wait_for(waiting[0], PATIENCE)).id == first
        await finish(outside, second)
        await announce(outside, prefix, second)
        assert (await asyncio.wait_for(waiting[1], PATIENCE)).id == second
        await oban.stop()

    async def test_an_error_of_the_first_look_is_raised(
        self, proxy: Proxy, prefix: str, add: Add
    ) -> None:
        oban = Oban(proxy.dsn, prefix=prefix, **NEVER)
        (id,) = await add(JobFactory(executing=True))
        await proxy.refuse()
        with hear(oban, "service_failed") as failures:
            for error in await asyncio.gather(
                *(oban.wait(id) for _ in range(3)), return_exceptions=True
            ):
                assert isinstance(error, OperationalError)
        assert failures.events == []
        await oban.stop()

    async def test_a_query_whose_connection_is_lost_is_sent_again(
        self, client: Oban, add: Add, outside: psycopg.AsyncConnection, no_queries: None
    ) -> None:
        first, second = await add(JobFactory(completed=True), JobFactory(completed=True))
        await client.wait(first, timeout=PATIENCE)

        async def is_ended() -> bool:
            return (await outside.execute(END_BLOCKED)).rowcount == 1

        async with outside.transaction():
            await outside.execute("LOCK oban_jobs")
            waiting = asyncio.create_task(client.wait(second))
            await until(is_ended)
        assert (await asyncio.wait_for(waiting, PATIENCE)).id == second

    async def test_missing_tables_are_named(self, engine: AsyncEngine) -> None:
        oban = Oban(engine.execution_options(schema_translate_map={}), **NEVER)
        with pytest.raises(SchemaMissingError):
            await oban.wait(1)

    async def test_an_unreadable_row_fails_only_its_own_waiter(
        self, client: Oban, add: Add, outside: psycopg.AsyncConnection
    ) -> None:
        ids = await add(*(JobFactory(completed=True) for _ in range(20)))
        await outside.execute(
            "UPDATE oban_jobs SET inserted_at = '20000-01-01' WHERE id = %s", [ids[7]]
        )
        found = await asyncio.gather(
            *(client.wait(id, timeout=PATIENCE) for id in ids), return_exceptions=True
        )
        error = found.pop(7)
        assert isinstance(error, UnreadableJobError)
        assert "inserted_at" in str(error)
        assert [job.id for job in found if isinstance(job, Job)] == ids[:7] + ids[8:]


def test_two_event_loops_wait_at_once(postgres_dsn: str, prefix: str) -> None:
    engine = async_engine(postgres_dsn, prefix, poolclass=NullPool)
    node = Oban(engine, name="node", prefix=prefix, queues={"default": 5})
    client = Oban(engine, name="client", prefix=prefix, **NEVER)

    async def wait(ids: list[int]) -> list[int]:
        return [job.id for job in await client.wait_many(ids, timeout=PATIENCE)]

    async def run() -> None:
        jobs = await node.enqueue_many(Quick.new() for _ in range(20))
        ids = [job.id for job in jobs]
        elsewhere = asyncio.to_thread(asyncio.run, wait(ids[10:]))
        waiting = asyncio.gather(wait(ids[:15]), elsewhere)
        async with node:
            assert await waiting == [ids[:15], ids[10:]]
        await engine.dispose()

    asyncio.run(run())
    assert not client._waiter._watches
