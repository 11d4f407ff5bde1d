"""The recorded version counts only if all parts of the schema exist."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, text

from oban_sqla.migrations import LATEST, current, downgrade, missing, upgrade
from oban_sqla.models.parts import PARTS

ALL = list(range(1, LATEST + 1))
# Drop tables like `oban uninstall`.
UNINSTALL = """
DROP TABLE IF EXISTS oban_producers CASCADE;
DROP TABLE IF EXISTS oban_leaders CASCADE;
DROP TABLE IF EXISTS oban_jobs CASCADE;
DROP TYPE IF EXISTS oban_job_state CASCADE;
"""
INSTALL = (
    Path(__file__)
    .with_name("oban_py_0_7.sql")
    .read_text()
    .replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
)

DROP = {
    "table": "DROP TABLE {name} CASCADE",
    "index": "DROP INDEX {name}",
    "function": "DROP FUNCTION {name} CASCADE",
    "constraint": "ALTER TABLE {table} DROP CONSTRAINT {name}",
    "trigger": "DROP TRIGGER {name} ON oban_jobs",
}


def run(connection: Connection, script: str) -> None:
    connection.execute(text(script.replace(":", r"\:")))


def drop(connection: Connection, part: str) -> None:
    kind, name = part.split()
    table = "oban_sqla_workflow_steps" if "steps" in name else "oban_jobs"
    run(connection, DROP[kind].format(name=name, table=table))


@pytest.fixture
def installed(connection: Connection) -> Connection:
    upgrade(connection)
    connection.commit()
    return connection


def test_a_new_installation_lacks_no_part(installed: Connection) -> None:
    assert missing(installed) == []


def test_each_index_is_listed_as_a_part_or_is_a_primary_key(installed: Connection) -> None:
    names = set(
        installed.scalars(text("SELECT indexname FROM pg_indexes WHERE tablename ~ '^oban'"))
    )
    keys = set(installed.scalars(text("SELECT conname FROM pg_constraint WHERE contype = 'p'")))
    listed = {part.split()[1] for parts in PARTS.values() for part in parts}
    assert names - keys - listed == set()


def test_an_upgrade_repairs_tables_that_oban_py_uninstalled(installed: Connection) -> None:
    run(installed, UNINSTALL)
    assert current(installed) == 0
    assert "table oban_jobs" in missing(installed)
    assert upgrade(installed) == ALL
    assert (current(installed), missing(installed)) == (LATEST, [])


def test_an_upgrade_repairs_tables_that_oban_py_installed_again(installed: Connection) -> None:
    run(installed, UNINSTALL)
    run(installed, INSTALL)
    run(installed, "INSERT INTO oban_jobs (worker) VALUES ('w')")
    assert current(installed) == 2
    assert upgrade(installed) == ALL[2:]
    assert (current(installed), missing(installed)) == (LATEST, [])
    assert installed.scalar(text("SELECT count(*) FROM oban_jobs")) == 1


EACH_KIND = {version: PARTS[version] for version in (2, 3, 4)}


@pytest.mark.parametrize(("prefix", "parts"), [(None, PARTS), ("jobs", EACH_KIND)])
def test_an_upgrade_mends_each_part(
    connection: Connection, prefix: str | None, parts: Mapping[int, tuple[str, ...]]
) -> None:
    upgrade(connection, prefix=prefix)
    if prefix is not None:
        connection.execute(text(f"SET search_path TO {prefix}"))
    mended, expected = {}, {}
    for version, added in parts.items():
        for part in added:
            with connection.begin_nested() as savepoint:
                drop(connection, part)
                mended[part] = (
                    part in missing(connection, prefix=prefix),
                    current(connection, prefix=prefix),
                    upgrade(connection, prefix=prefix),
                    missing(connection, prefix=prefix),
                )
                savepoint.rollback()
            expected[part] = (True, version - 1, ALL[version - 1 :], [])
    assert mended == expected


def test_the_remaining_parts_can_be_dropped(installed: Connection) -> None:
    run(installed, UNINSTALL)
    assert downgrade(installed, 0) == ALL[::-1]
    assert inspect(installed).get_table_names() == []
