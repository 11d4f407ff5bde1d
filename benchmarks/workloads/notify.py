"""B11: the cost of NOTIFY for clients that enqueue without pause."""

import asyncio
from contextlib import AsyncExitStack

import psycopg
from psycopg import sql

from benchmarks.child import Child
from benchmarks.contestants.oban_sqla import Entrant
from benchmarks.workload import Measured, Target, Workload, within

PROCESSES, CLIENTS_EACH = 2, 8
LISTENERS = 4
# A function of this name in the schema shadows PostgreSQL's own.
MUTE = """
CREATE SCHEMA muted;
CREATE FUNCTION muted.pg_notify(text, text) RETURNS void LANGUAGE sql AS '';
"""
WITHOUT, WITH, LISTENED = "without NOTIFY, jobs/s", "with NOTIFY, jobs/s", "with listeners, jobs/s"
CHANNEL = "public.oban_insert"


async def notify(contestant: Entrant, milliseconds: int) -> Measured:
    connect = psycopg.AsyncConnection.connect
    async with await connect(contestant.dsn, autocommit=True) as connection:
        await connection.execute(MUTE)
        database = sql.Identifier(connection.info.dbname)
        path = sql.SQL("ALTER DATABASE {} SET search_path = muted, public, pg_catalog")
        await connection.execute(path.format(database))
        async with AsyncExitStack() as stack:
            listener = await stack.enter_async_context(await _listener(contestant.dsn))
            without = await _flat_out(contestant, milliseconds)
            assert not await _hears(listener), "NOTIFY was not muted"
        await connection.execute(sql.SQL("ALTER DATABASE {} RESET search_path").format(database))
        unheard = await _flat_out(contestant, milliseconds)
        async with AsyncExitStack() as stack:
            listeners = [
                await stack.enter_async_context(await _listener(contestant.dsn))
                for _ in range(LISTENERS)
            ]
            heard = await _flat_out(contestant, milliseconds)
            assert all([await _hears(listener) for listener in listeners])
    return Measured({WITHOUT: without, WITH: unheard, LISTENED: heard})


async def _flat_out(contestant: Entrant, milliseconds: int) -> float:
    before = await contestant.number(contestant.waiting)
    seconds = milliseconds / 1000
    children = await asyncio.gather(
        *(
            Child.start("clients", contestant.dsn, str(CLIENTS_EACH), str(seconds))
            for _ in range(PROCESSES)
        )
    )
    for child in children:
        await child.tell("start")
    done = sum([int(await child.end()) for child in children])
    await contestant.expect(contestant.waiting, before + PROCESSES * CLIENTS_EACH + done)
    return done / seconds


async def _listener(dsn: str) -> psycopg.AsyncConnection:
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
    return connection


async def _hears(listener: psycopg.AsyncConnection) -> bool:
    return bool([notify async for notify in listener.notifies(timeout=0.1, stop_after=1)])


WORKLOADS = (
    Workload(
        "B11",
        f"{PROCESSES * CLIENTS_EACH} clients in {PROCESSES} processes enqueue jobs,"
        " one per transaction, for {count} ms",
        Entrant,
        notify,
        3_000,
        (
            Target(
                "with NOTIFY: at least 0.9 times the rate without",
                within("B11", WITH, WITHOUT),
                0.9,
            ),
            Target(
                f"with NOTIFY and {LISTENERS} listeners: at least 0.9 times the rate without",
                within("B11", LISTENED, WITHOUT),
                0.9,
            ),
        ),
    ),
)
