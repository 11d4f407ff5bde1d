"""`op.upgrade_oban()` and `op.downgrade_oban()` in a migration of a user."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command, op
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, inspect, text

from oban_sqla.migrations import LATEST, current

ENV = """
from alembic import context
import oban_sqla.migrations

connection = context.config.attributes["connection"]
context.configure(connection=connection)
with context.begin_transaction():
    context.run_migrations()
"""

REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "a1"
down_revision = None

def upgrade():
    op.upgrade_oban(version=1, prefix="jobs")
    job_id = sa.Column("job_id", sa.BigInteger, sa.ForeignKey("jobs.oban_jobs.id"))
    op.create_table("invoices", job_id)

def downgrade():
    op.drop_table("invoices")
    op.downgrade_oban(version=0, prefix="jobs")
"""


@pytest.fixture
def operations(connection: Connection) -> Iterator[Operations]:
    with Operations.context(MigrationContext.configure(connection)) as operations:
        yield operations


def test_the_operations_are_methods_of_op(connection: Connection, operations: Operations) -> None:
    assert op.upgrade_oban(version=1) == [1]  # type: ignore[attr-defined]
    assert current(connection) == 1
    assert op.downgrade_oban() == [1]  # type: ignore[attr-defined]
    assert current(connection) == 0


def test_the_default_version_is_the_latest(connection: Connection, operations: Operations) -> None:
    operations.upgrade_oban()  # type: ignore[attr-defined]
    assert current(connection) == LATEST


def test_an_installed_version_is_not_changed(operations: Operations) -> None:
    assert operations.upgrade_oban(1) == [1]  # type: ignore[attr-defined]
    assert operations.upgrade_oban(1) == []  # type: ignore[attr-defined]


def test_a_migration_runs_the_operations(tmp_path: Path, connection: Connection) -> None:
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "a1.py").write_text(REVISION)
    config = Config()
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection

    command.upgrade(config, "head")
    assert current(connection, prefix="jobs") == 1
    command.downgrade(config, "base")
    assert current(connection, prefix="jobs") == 0
    assert inspect(connection).get_table_names() == ["alembic_version"]


@pytest.mark.parametrize("prefix", [None, "jobs", 'odd "%(x)s :name'])
def test_offline_steps_can_be_repeated(connection: Connection, prefix: str | None) -> None:
    script = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql",
        opts={"as_sql": True, "literal_binds": True, "output_buffer": script},
        dialect_opts={"paramstyle": "named"},
    )
    with Operations.context(context) as operations:
        assert operations.upgrade_oban(prefix=prefix)  # type: ignore[attr-defined]
    for _ in range(2):
        connection.connection.driver_connection.execute(script.getvalue())  # type: ignore[union-attr]
        assert current(connection, prefix=prefix) == LATEST


def test_a_naming_convention_of_the_user_renames_none_of_our_constraints(
    connection: Connection,
) -> None:
    def names(prefix: str) -> set[tuple[str, str]]:
        query = text(
            "SELECT conrelid::regclass::text, conname FROM pg_constraint"
            " WHERE connamespace = to_regnamespace(:prefix) AND contype <> 'n'"
        )
        rows = connection.execute(query, {"prefix": prefix})
        return {(table.removeprefix(f"{prefix}."), name) for table, name in rows}

    convention = {"pk": "key_of_%(table_name)s", "ck": "check_%(table_name)s_%(constraint_name)s"}
    for prefix, metadata in (
        ("plain", MetaData()),
        ("named", MetaData(naming_convention=convention)),
    ):
        context = MigrationContext.configure(connection, opts={"target_metadata": metadata})
        with Operations.context(context) as operations:
            operations.upgrade_oban(prefix=prefix)  # type: ignore[attr-defined]
    assert ("oban_jobs", "attempt_range") in names("plain")
    assert names("named") == names("plain")
