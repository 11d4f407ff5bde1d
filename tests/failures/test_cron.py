"""One of three leaders dies, or is paused, when a minute with a tick begins."""

import asyncio
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql

from tests.failures.conftest import Runs, Spawn, ended, name_of

pytestmark = pytest.mark.torture

# Seconds in which the nodes must be up, while other tests run; otherwise the test takes a minute
# longer.
LEAD = 12.0


class Clock:
    """The database's clock as the nodes see it: set to shortly before the next minute."""

    def __init__(self) -> None:
        now = time.time()
        self.ahead = (60.0 - LEAD - now) % 60.0

    def now(self) -> float:
        return time.time() + self.ahead

    def next_minute(self) -> float:
        """The next minute that is at least a second away."""
        return (self.now() + 1.0) // 60 * 60 + 60

    async def wait_until(self, instant: float) -> None:
        await asyncio.sleep(max(0.0, instant - self.now()))


@pytest.fixture
def clock(postgres_dsn: str, prefix: str) -> Iterator[Clock]:
    """The search path finds this function before the server's own."""
    clock = Clock()
    name = sql.Identifier(prefix, "statement_timestamp")
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL(
                "CREATE FUNCTION {}() RETURNS timestamptz STABLE LANGUAGE sql AS"
                " 'SELECT pg_catalog.statement_timestamp() + make_interval(secs => {})'"
            ).format(name, sql.Literal(clock.ahead))
        )
        yield clock
        connection.execute(sql.SQL("DROP FUNCTION {}").format(name))


@pytest.mark.parametrize(
    ("order", "early"),
    [(signal.SIGKILL, 0.2), (signal.SIGKILL, 0.0), (signal.SIGSTOP, 0.2)],
    ids=["killed before", "killed then", "stopped before"],
)
async def test_a_tick_is_neither_missed_nor_enqueued_twice(
    order: signal.Signals, early: float, clock: Clock, spawn: Spawn, runs: Runs, prefix: str
) -> None:
    options = {
        "cron": "* * * * *",
        "heartbeat_expiry": 2.0,
        "connect_args": {"options": f"-c search_path={prefix},pg_catalog"},
    }
    nodes = await asyncio.gather(*(spawn(limit=1, **options) for _ in range(3)))
    await runs.until(lambda: runs.leader(clock.now()) is not None)
    minute = clock.next_minute()
    await clock.wait_until(minute - early)
    leader = next(node for node in nodes if name_of(node) == runs.leader(clock.now()))
    leader.send_signal(order)

    tick = datetime.fromtimestamp(minute, UTC)
    await runs.until(lambda: tick in runs.ticks(), "no tick:")
    await runs.until(lambda: runs.leader(clock.now()) not in (None, name_of(leader)))
    await runs.until(lambda: runs.states().keys() == {"completed"}, "not completed:")
    if order is signal.SIGSTOP:
        # The paused leader wakes up, and its clock says that the minute has just begun.
        leader.send_signal(signal.SIGCONT)
    for node in nodes:
        if node is not leader or order is signal.SIGSTOP:
            node.terminate()
            assert await ended(node) == 0
    assert runs.ticks().count(tick) == 1
    assert len(set(runs.ticks())) == len(runs.ticks())
