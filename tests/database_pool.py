"""A pool of empty databases for tests, since creating one takes half a second."""

import time
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
from psycopg import sql
from sqlalchemy import make_url

# Settings that a test may have changed, and that dropping all schemas does not undo.
UNCHANGED = """
SELECT datacl IS NULL
   AND pg_encoding_to_char(encoding) = 'UTF8'
   AND NOT EXISTS (SELECT FROM pg_db_role_setting WHERE setdatabase = pg_database.oid)
   AND NOT EXISTS (SELECT FROM pg_default_acl)
   AND NOT EXISTS (SELECT FROM pg_event_trigger)
   AND NOT EXISTS (SELECT FROM pg_publication)
   AND NOT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = datname)
   AND (SELECT count(*) FROM pg_extension) = 1
FROM pg_database WHERE datname = current_database()
"""
EMPTY = """
DO $$
DECLARE name text;
BEGIN
    FOR name IN
        SELECT nspname FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
    CREATE SCHEMA public AUTHORIZATION pg_database_owner;
    GRANT USAGE ON SCHEMA public TO PUBLIC;
END $$
"""
OTHERS = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
PATIENCE = 5.0


class DatabasePool:
    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._free: list[str] = []

    def take(self) -> str:
        """The DSN of an empty database."""
        return self._free.pop() if self._free else self._create()

    def give_back(self, dsn: str) -> None:
        """Empty a database for the next test. Fails if the test left a connection open."""
        with psycopg.connect(dsn, autocommit=True) as connection:
            left = _left_open(connection)
            reusable = not left and connection.execute(UNCHANGED).fetchone() == (True,)
            if reusable:
                connection.execute(EMPTY)
        if reusable:
            self._free.append(dsn)
        else:
            self._drop(dsn)
        assert not left, f"the test left connections open, which ran: {left}"

    def close(self) -> None:
        for dsn in self._free:
            self._drop(dsn)

    def _create(self) -> str:
        name = f"test_{uuid4().hex}"
        self._execute("CREATE DATABASE {}", name)
        return make_url(self._dsn).set(database=name).render_as_string(hide_password=False)

    def _drop(self, dsn: str) -> None:
        self._execute("DROP DATABASE {} WITH (FORCE)", str(make_url(dsn).database))

    def _execute(self, statement: LiteralString, name: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))


def _left_open(connection: psycopg.Connection[Any]) -> list[Any]:
    """The last queries of the connections that are still open. Closing ones may end soon."""
    until = time.monotonic() + PATIENCE
    while True:
        left = connection.execute(OTHERS, [connection.info.backend_pid]).fetchall()
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.005)
