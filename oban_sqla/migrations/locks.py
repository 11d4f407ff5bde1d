"""Take the locks of a migration in short tries, and log the transactions that it waits for.

Writers queue behind a migration that waits for a lock. So each try is short, and writers get
through between two tries.
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
"""Seconds that a migration waits for its locks by default."""

TRY, PAUSE = "100ms", 0.4
# Seconds of tries in one statement. Between two statements the log can name the holders.
ROUND = 1.0
# Seconds until the same holder is logged again.
TOLD_AGAIN = 10.0
# For locks of a step on anything beside our tables.
STEP_TIMEOUT = "5s"

# The number of our advisory lock: "oban" in ASCII.
_ADVISORY = 0x6F62616E

_TRY = """
DECLARE
  before text := current_setting('lock_timeout');
  ends timestamptz := clock_timestamp() + make_interval(secs => {seconds});
  locked boolean := false;
BEGIN
  LOOP
    -- The server cancels an autovacuum that blocks us, but only after deadlock_timeout.
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
    """Wait at most `wait` seconds until no other migration of ours runs in this database."""
    # "IF NOT EXISTS" does not suffice: two transactions that create one table still collide.
    lock = f"PERFORM pg_advisory_xact_lock({_ADVISORY})"
    which = f"l.locktype = 'advisory' AND l.classid = 0 AND l.objid = {_ADVISORY}"
    _acquire(op, lock, "ARRAY[]::oid[]", which, "another migration of oban_sqla to end", wait)


def lock_tables(op: Operations, tables: Sequence[str], wait: float) -> None:
    """Lock all existing tables exclusively, before the first step of a migration.

    If each step took its own lock, the migration could deadlock with writers.
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
    """Limit how long a step waits for a lock on anything beside our tables."""
    execute(
        op,
        "SELECT set_config('oban_sqla.lock_timeout', current_setting('lock_timeout'), true),"
        f" set_config('lock_timeout', '{STEP_TIMEOUT}', true)",
    )
    yield
    # In autocommit, the stored setting is empty again.
    execute(
        op,
        "SELECT set_config('lock_timeout', before, true)"
        " FROM current_setting('oban_sqla.lock_timeout') AS before WHERE before <> ''",
    )


def _acquire(op: Operations, lock: str, tables: str, which: str, what: str, wait: float) -> None:
    def attempt(seconds: float, *, final: bool) -> None:
        failure = _failure(what, wait, "pg_locks names the holder")
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
    """A sentence about each process, or prepared transaction, that holds such a lock."""
    query = _HOLDERS.format(which=which).replace(":", r"\:")
    rows = connection.execute(text(query))
    return {row.pid or row.prepared: _holder(row) for row in rows} or {
        None: "its last holder has just ended"
    }


def _holder(row: Any) -> str:
    if row.pid is None:
        gid = literal(row.prepared or "")
        return f"the prepared transaction {gid} holds the lock: ROLLBACK PREPARED {gid}"
    about = ", ".join(filter(None, (row.role, row.application, row.state)))
    query = " ".join(row.query.split())
    return f"process {row.pid} ({about}) has held the lock for {row.seconds} s: {query}"


def _failure(what: str, wait: float, holders: str) -> str:
    return (
        f"waited {wait:g} s for {what}: {holders}. Nothing was changed. Run the migration again,"
        " perhaps with a longer wait, or end the process that holds the lock: SELECT"
        " pg_terminate_backend(pid)"
    )


def _array(names: Sequence[str]) -> str:
    return f"ARRAY[{', '.join(map(literal, names))}]"
