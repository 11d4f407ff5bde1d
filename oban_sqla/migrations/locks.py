"""Locks of a migration: taken without keeping others waiting, and saying what it waits for.

Who enqueues waits behind a migration that waits for a lock. So each try is short, and between two
tries everybody else has a turn.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from alembic.operations import Operations
from sqlalchemy import Connection, text

from ..errors import ObanError
from .ddl import execute, execute_block, literal

# Below Alembic's logger, which its configuration files leave enabled.
logger = logging.getLogger("alembic.runtime.oban_sqla")

WAIT = 60.0
"""Seconds that a migration waits for its locks, unless it is told otherwise."""

TRY, PAUSE = "100ms", 0.4
# What one statement spends on its tries, so that what it waits for can be told meanwhile.
ROUND = 1.0
# How often the same is told again.
TOLD_AGAIN = 10.0
# For what a step locks beside our tables.
STEP_TIMEOUT = "5s"

# Any number will do, if nobody else takes it: this is "oban" in ASCII.
_ADVISORY = 0x6F62616E

_TRY = """
DECLARE
  before text := current_setting('lock_timeout');
  ends timestamptz := clock_timestamp() + make_interval(secs => {seconds});
  locked boolean := false;
BEGIN
  LOOP
    -- The server stops an autovacuum for us, though only after its deadlock_timeout.
    PERFORM set_config('lock_timeout', CASE WHEN EXISTS (
      SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
      WHERE relation = ANY ({tables}) AND granted AND mode = 'ShareUpdateExclusiveLock'
        AND usesysid IS NULL
    ) THEN extract(epoch FROM current_setting('deadlock_timeout')::interval) * 1000 + 500 || 'ms'
      ELSE '{timeout}' END, true);
    BEGIN
      {lock};
      locked := true;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN NULL;
    END;
    EXIT WHEN locked OR clock_timestamp() >= ends;
    PERFORM pg_sleep({pause});
  END LOOP;
  PERFORM set_config('lock_timeout', before, true);
  PERFORM set_config('oban_sqla.locked', locked::text, false);
  IF NOT locked AND {final} THEN
    RAISE lock_not_available USING MESSAGE = {failure};
  END IF;
END
"""

_HOLDERS = """
SELECT l.pid, coalesce(a.usename, '') AS role, coalesce(a.application_name, '') AS application,
       coalesce(a.state, '') AS state, coalesce(left(a.query, 200), '') AS query,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::integer AS seconds,
       p.gid AS prepared
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
     LEFT JOIN pg_locks own ON l.pid IS NULL AND own.locktype = 'transactionid'
          AND own.virtualtransaction = l.virtualtransaction
     LEFT JOIN pg_prepared_xacts p ON p.transaction = own.transactionid
WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND {which}
ORDER BY a.xact_start
"""


def lock_out_other_migrations(op: Operations, wait: float) -> None:
    """Wait until no other migration of ours runs in this database, `wait` seconds at most."""
    # "IF NOT EXISTS" is no protection: two that create the same table at once still collide.
    lock = f"PERFORM pg_advisory_xact_lock({_ADVISORY})"
    which = f"l.locktype = 'advisory' AND l.classid = 0 AND l.objid = {_ADVISORY}"
    _acquire(op, lock, "ARRAY[]::oid[]", which, "another migration of oban_sqla to end", wait)


def lock_tables(op: Operations, tables: Sequence[str], wait: float) -> None:
    """Lock those of the tables that are there for all that a migration may do to them.

    With each step's own lock, one after the other, it would wait in a circle with those who write.
    """
    there = f"ARRAY(SELECT to_regclass(unnest({_array(tables)})))"
    lock = (
        f"EXECUTE coalesce((SELECT 'LOCK TABLE ' || string_agg(t::regclass::text, ', ')"
        f" || ' IN ACCESS EXCLUSIVE MODE' FROM unnest({there}) t WHERE t IS NOT NULL), 'SELECT')"
    )
    which = f"l.locktype = 'relation' AND l.relation = ANY ({there})"
    _acquire(op, lock, f"{there}::oid[]", which, "a lock on the tables of oban_sqla", wait)


@contextmanager
def no_long_waits(op: Operations) -> Iterator[None]:
    """Have a step fail soon when it has to wait for a lock on anything else."""
    execute(
        op,
        "SELECT set_config('oban_sqla.lock_timeout', current_setting('lock_timeout'), true),"
        f" set_config('lock_timeout', '{STEP_TIMEOUT}', true)",
    )
    yield
    # In autocommit the setting is empty again.
    execute(
        op,
        "SELECT set_config('lock_timeout', before, true)"
        " FROM current_setting('oban_sqla.lock_timeout') AS before WHERE before <> ''",
    )


def _acquire(op: Operations, lock: str, tables: str, which: str, what: str, wait: float) -> None:
    def attempt(seconds: float, *, final: bool) -> None:
        failure = _failure(what, wait, "pg_locks tells who holds it")
        block = _TRY.format(
            lock=lock,
            tables=tables,
            timeout=TRY,
            pause=PAUSE,
            seconds=seconds,
            final=str(final).lower(),
            failure=literal(failure),
        )
        execute_block(op, block)

    if op.get_context().as_sql:
        attempt(wait, final=True)
        return
    connection = op.get_bind()
    ends = time.monotonic() + wait
    told: dict[Any, float] = {}
    while True:
        attempt(max(0.0, min(ROUND, ends - time.monotonic())), final=False)
        if connection.scalar(text("SELECT current_setting('oban_sqla.locked')")) == "true":
            return
        holders = _holders(connection, which)
        now = time.monotonic()
        if now >= ends:
            raise ObanError(_failure(what, wait, "; ".join(holders.values())))
        if any(now - told.get(key, -TOLD_AGAIN) >= TOLD_AGAIN for key in holders):
            told.update(dict.fromkeys(holders, now))
            logger.warning("waiting for %s: %s", what, "; ".join(holders.values()))


def _holders(connection: Connection, which: str) -> dict[Any, str]:
    """Who holds such locks, as sentences by process."""
    query = _HOLDERS.format(which=which).replace(":", r"\:")
    rows = connection.execute(text(query))
    return {row.pid or row.prepared: _holder(row) for row in rows} or {
        None: "whoever held it has just ended"
    }


def _holder(row: Any) -> str:
    if row.pid is None:
        gid = literal(row.prepared or "")
        return f"the prepared transaction {gid} holds it: ROLLBACK PREPARED {gid}"
    about = ", ".join(filter(None, (row.role, row.application, row.state)))
    query = " ".join(row.query.split())
    return f"process {row.pid} ({about}) has held it for {row.seconds} s: {query}"


def _failure(what: str, wait: float, holders: str) -> str:
    return (
        f"waited {wait:g} s for {what}: {holders}. Nothing was changed: run it again, with a longer"
        " wait perhaps, or end the process that holds the lock, SELECT pg_terminate_backend(pid)"
    )


def _array(names: Sequence[str]) -> str:
    return f"ARRAY[{', '.join(map(literal, names))}]"
