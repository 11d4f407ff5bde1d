"""Upgrading a database that already has the tables of another Oban."""

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from oban_sqla.migrations import LATEST, current, upgrade
from oban_sqla.models import metadata

# Oban Pro installs the workflows. The Oban for Python that is installed here does not.
OURS = ("oban_sqla_", "oban_workflows")
OBAN_PY = Path(__file__).with_name("oban_py_0_7.sql").read_text()

WHAT_THERE_IS = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.attidentity, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relkind = 'r' AND a.attnum > 0 AND c.relnamespace = 'public'::regnamespace
        ORDER BY c.relname, a.attnum""",
    "tables": """
        SELECT relname, relpersistence, (SELECT array_agg(o ORDER BY o) FROM unnest(reloptions) o)
        FROM pg_class WHERE relkind IN ('r', 'S') AND relnamespace = 'public'::regnamespace
        ORDER BY relname""",
    "constraints": """
        SELECT conrelid::regclass, conname, contype, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        ORDER BY conrelid::regclass::text, conname""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        ORDER BY tablename, indexname""",
    "states": """
        SELECT enumlabel FROM pg_enum WHERE enumtypid = 'oban_job_state'::regtype
        ORDER BY enumsortorder""",
    "functions": """
        SELECT proname, pg_get_function_arguments(oid), pg_get_function_result(oid)
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY proname""",
}


def catalog(connection: Connection) -> dict[str, list[Any]]:
    """The objects in the schema, without the tables and objects that only we have."""
    return {
        what: [
            tuple(row)
            for row in connection.execute(text(query.replace(":", r"\:")))
            if not any(str(name).startswith(OURS) for name in row[:2])
        ]
        for what, query in WHAT_THERE_IS.items()
    }


def install_oban_py(connection: Connection, script: str = OBAN_PY) -> None:
    connection.execute(text(script.replace(":", r"\:")))


def test_we_install_the_same_tables_as_oban_py(connection: Connection) -> None:
    install_oban_py(connection)
    theirs = catalog(connection)
    connection.rollback()
    upgrade(connection)
    assert catalog(connection) == theirs


def test_rows_of_oban_py_are_kept_unchanged(connection: Connection) -> None:
    install_oban_py(connection)
    connection.execute(
        text("INSERT INTO oban_jobs (worker, tags) SELECT 'w', '{a,b}' FROM generate_series(1, 9)")
    )
    connection.execute(
        text("INSERT INTO oban_leaders VALUES ('oban', 'node', now(), now() + interval '1 hour')")
    )
    before = catalog(connection)
    jobs = connection.execute(text("SELECT * FROM oban_jobs ORDER BY id")).all()
    leaders = connection.execute(text("SELECT * FROM oban_leaders")).all()
    body = text("SELECT prosrc FROM pg_proc WHERE proname = 'oban_count_estimate'")
    theirs = connection.scalar(body)
    assert current(connection) == 0

    assert upgrade(connection) == list(range(1, LATEST + 1))

    assert catalog(connection) == before
    assert connection.execute(text("SELECT * FROM oban_jobs ORDER BY id")).all() == jobs
    assert connection.execute(text("SELECT * FROM oban_leaders")).all() == leaders
    assert connection.scalar(body) == theirs
    assert current(connection) == LATEST
    options = {"compare_type": True, "compare_server_default": True}
    context = MigrationContext.configure(connection, opts=options)
    assert compare_metadata(context, metadata) == []


def test_storage_parameters_of_the_user_are_kept(connection: Connection) -> None:
    install_oban_py(connection)
    connection.execute(text("ALTER TABLE oban_jobs SET (autovacuum_vacuum_cost_limit = 500)"))
    before = catalog(connection)["tables"]
    upgrade(connection)
    assert catalog(connection)["tables"] == before


@pytest.mark.parametrize(
    "missing",
    [
        "DROP INDEX oban_jobs_staging_index",
        "DROP TABLE oban_producers",
        "DROP FUNCTION oban_count_estimate",
        "ALTER TABLE oban_jobs RESET (fillfactor, autovacuum_vacuum_scale_factor,"
        " autovacuum_vacuum_threshold, autovacuum_vacuum_insert_scale_factor,"
        " autovacuum_vacuum_insert_threshold, autovacuum_vacuum_cost_limit,"
        " autovacuum_vacuum_cost_delay, autovacuum_analyze_scale_factor,"
        " autovacuum_analyze_threshold)",
    ],
)
def test_missing_parts_are_added(connection: Connection, missing: str) -> None:
    install_oban_py(connection)
    complete = catalog(connection)
    connection.execute(text(missing))
    assert catalog(connection) != complete
    upgrade(connection)
    assert catalog(connection) == complete


def test_a_state_that_an_older_type_lacks_is_added(connection: Connection) -> None:
    install_oban_py(connection)
    complete = catalog(connection)
    connection.rollback()

    older = OBAN_PY.replace("    'suspended',\n", "")
    assert older != OBAN_PY
    install_oban_py(connection, older)
    assert catalog(connection) != complete
    connection.commit()
    upgrade(connection)
    connection.commit()
    assert catalog(connection) == complete
    connection.execute(text("INSERT INTO oban_jobs (worker, state) VALUES ('w', 'suspended')"))
