"""A pool of empty schemas with our tables, for one test after the other."""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
from psycopg import sql

from oban_sqla.migrations import upgrade
from oban_sqla.migrations.version_table import NAME as VERSION_TABLE
from oban_sqla.migrations.versions import TABLES as OURS
from tests.databases import Base, sync_engine

KEPT = (*(table for table in OURS if table != VERSION_TABLE), "users")
"""The tables that are emptied between two tests."""

# Everything in a schema that a test may change, and that emptying its tables does not restore.
SHAPE = """
SELECT md5(string_agg(part, ';' ORDER BY part)) FROM (
    SELECT format('%%s %%s', oid, reloptions)
    FROM pg_class WHERE relnamespace = %s::regnamespace
    UNION ALL
    SELECT format('%%s %%s %%s %%s %%s', attrelid, attname, atttypid, attnotnull, atthasdef)
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = %s::regnamespace AND relkind = 'r'
    UNION ALL SELECT oid::text
    FROM pg_constraint WHERE connamespace = %s::regnamespace
    UNION ALL SELECT format('%%s %%s', pg_trigger.oid, tgenabled)
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE relnamespace = %s::regnamespace
    UNION ALL SELECT format('%%s %%s', oid, md5(prosrc))
    FROM pg_proc WHERE pronamespace = %s::regnamespace
) AS parts (part)
"""

RESTART = """
SELECT count(setval(oid::regclass, 1, false)) FROM pg_class
WHERE relnamespace = %s::regnamespace AND relkind = 'S'
"""
OTHERS = """
SELECT relname FROM pg_class
WHERE relnamespace = %s::regnamespace AND relkind = 'r' AND relname <> ALL(%s)
"""
IS_LARGE = """
SELECT pg_relation_size(%(table)s) > %(bytes)s
    OR pg_stat_get_dead_tuples(%(table)s::regclass) > %(dead)s
"""
APPLICATION = "the schemas of the tests"
"""A test that terminates the connections of its nodes spares this one."""

LARGE = 1_000_000  # bytes
MANY = 2_000  # dead rows, which each DELETE leaves


class Schemas:
    """The free schemas, and the connection that creates and empties them."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection = psycopg.connect(dsn, autocommit=True, application_name=APPLICATION)
        self._free: list[str] = []
        self._shapes: dict[str, str] = {}

    def take(self) -> str:
        return self._free.pop() if self._free else self.install()

    def give_back(self, name: str) -> None:
        """Empty a schema for the next test, or drop it if the test has changed its tables."""
        if self._shape(name) != self._shapes[name]:
            self._drop_others(name)
            if self._shape(name) != self._shapes[name]:
                self._drop(name)
                return
        tables = [sql.Identifier(name, table) for table in KEPT]
        if self._query(IS_LARGE, {"table": f"{name}.oban_jobs", "bytes": LARGE, "dead": MANY}):
            self._execute("TRUNCATE {} RESTART IDENTITY", sql.SQL(", ").join(tables))
        else:
            # For few rows, DELETE takes a twentieth of the time of TRUNCATE, which creates new
            # files.
            self._execute("DELETE FROM {};" * len(tables), *tables)
            self._query(RESTART, [name])
        self._free.append(name)

    def close(self) -> None:
        for name in self._free:
            self._drop(name)
        self._connection.close()

    def install(self) -> str:
        """The name of a new schema, of whose tables the server has no statistics."""
        name = f"oban_{uuid4().hex[:8]}"
        engine = sync_engine(self._dsn, name)
        with engine.begin() as connection:
            upgrade(connection, prefix=name)
            Base.metadata.create_all(connection)
        engine.dispose()
        self._shapes[name] = self._shape(name)
        return name

    def _drop_others(self, name: str) -> None:
        """Drop the tables that a test has added."""
        others = self._connection.execute(OTHERS, [name, [*KEPT, VERSION_TABLE]]).fetchall()
        for (table,) in others:
            self._execute("DROP TABLE {} CASCADE", sql.Identifier(name, table))

    def _drop(self, name: str) -> None:
        self._execute("DROP SCHEMA {} CASCADE", sql.Identifier(name))

    def _shape(self, name: str) -> str:
        return str(self._query(SHAPE, [name] * 5))

    def _execute(self, statement: LiteralString, *names: sql.Composable) -> None:
        self._connection.execute(sql.SQL(statement).format(*names))

    def _query(
        self, statement: LiteralString, parameters: Sequence[Any] | Mapping[str, Any]
    ) -> Any:
        ((found,),) = self._connection.execute(statement, parameters).fetchall()
        return found
