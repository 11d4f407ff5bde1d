"""B9: the statements and connections of an idle node."""

import asyncio
import re
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from benchmarks.contestant import Idles
from benchmarks.workload import Measured, Target, Workload, itself

SETTLING = 3.0
CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


async def idle(contestant: Idles, milliseconds: int) -> Measured:
    parts = conninfo_to_dict(contestant.dsn)
    # The server logs all statements on this database.
    log = Path(str(parts["host"]), "server.log")
    statement = re.compile(rf"^{parts['dbname']} LOG:  (?:statement|execute)", re.MULTILINE)
    async with contestant.idle():
        await asyncio.sleep(min(SETTLING, milliseconds / 1000))
        before = _length(log)
        await asyncio.sleep(milliseconds / 1000)
        after = _length(log)
        connections = await contestant.number(CONNECTIONS)
    statements = len(statement.findall(_part(log, before, after)))
    return Measured(
        {"statements/s": statements / milliseconds * 1000, "connections": float(connections)}
    )


def _length(log: Path) -> int:
    return log.stat().st_size


def _part(log: Path, begin: int, end: int) -> str:
    with log.open("rb") as lines:
        lines.seek(begin)
        return lines.read(end - begin).decode()


WORKLOADS = (
    Workload(
        "B9",
        "an idle node with 3 queues, for {count} ms",
        Idles,
        idle,
        30_000,
        (
            Target("at most 0.5 statements/s", itself("B9", "statements/s"), at_most=0.5),
            Target("at most 3 connections", itself("B9", "connections"), at_most=3),
        ),
        most_runs=1,
        at_once=True,
        settings={"log_statement": "all"},
    ),
)
