"""The optional index for `Job.args_contain`."""

import io
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from oban_sqla.migrations import LATEST, create_args_index, current, drop_args_index, upgrade
from oban_sqla.migrations.args_index import INDEX

ODD = 'odd "%(x)s :name'
REVISION = """
from alembic import op

revision = "a1"
down_revision = None

def upgrade():
    op.upgrade_oban(version=6, prefix="jobs")
    op.create_oban_args_index(prefix="jobs")

def downgrade():
    op.drop_oban_args_index(prefix="jobs")
    op.downgrade_oban(version=0, prefix="jobs")
"""
ENV = """
from alembic import context
import oban_sqla.migrations

connection = context.config.attributes["connection"]
context.configure(connection=connection)
with context.begin_transaction():
    context.run_migrations()
"""


def schemas(connection: Connection) -> list[str]:
    """The schemas with a valid index of this kind."""
    query = text(
        "SELECT relnamespace::regnamespace::text FROM pg_class JOIN pg_index ON indexrelid = oid"
        " WHERE relname = :index AND indisvalid"
    )
    found = list(connection.scalars(query.bindparams(index=INDEX)))
    connection.rollback()
    return found


@pytest.fixture
def installed(connection: Connection) -> Connection:
    upgrade(connection)
    connection.commit()
    return connection


def test_the_index_is_made_only_on_request(installed: Connection) -> None:
    query = text("SELECT indexdef FROM pg_indexes WHERE tablename = 'oban_jobs'")
    assert not [index for index in installed.scalars(query) if "USING gin" in index]


def test_a_database_of_version_5_loses_its_index(installed: Connection) -> None:
    installed.execute(
        text("CREATE INDEX oban_sqla_jobs_args_index ON oban_jobs USING gin (args jsonb_path_ops)")
    )
    installed.execute(text("DELETE FROM oban_sqla_version WHERE version >= 6"))
    assert upgrade(installed) == [*range(6, LATEST + 1)]
    installed.commit()
    test_the_index_is_made_only_on_request(installed)


@pytest.mark.parametrize("concurrently", [True, False])
@pytest.mark.parametrize("prefix", ["jobs", ODD])
def test_the_index_can_be_made_twice_in_a_schema(
    connection: Connection, prefix: str, concurrently: bool
) -> None:
    upgrade(connection, prefix=prefix)
    connection.commit()
    for change in (create_args_index, drop_args_index):
        for _ in range(2):
            change(connection, prefix=prefix, concurrently=concurrently)
            connection.commit()
        assert len(schemas(connection)) == (change is create_args_index)


def test_a_concurrent_build_blocks_no_enqueue(engine: Engine, installed: Connection) -> None:
    """The build waits for older transactions, but no enqueue waits for the build."""
    with engine.connect() as other, engine.connect() as third:
        other.execute(text("INSERT INTO oban_jobs (worker) VALUES ('w')"))
        installed.execute(text("SET lock_timeout = '200ms'"))
        installed.commit()
        with pytest.raises(OperationalError, match="lock timeout"):
            create_args_index(installed)
        third.execute(text("SET lock_timeout = '200ms'"))
        third.execute(text("INSERT INTO oban_jobs (worker) VALUES ('w')"))
        third.commit()
    installed.rollback()
    # The result of the interrupted build is replaced.
    assert schemas(installed) == []
    create_args_index(installed)
    assert schemas(installed) == ["public"]


def test_a_migration_makes_the_index(tmp_path: Path, connection: Connection) -> None:
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "a1.py").write_text(REVISION)
    config = Config()
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    assert schemas(connection) == ["jobs"]
    command.downgrade(config, "base")
    assert current(connection, prefix="jobs") == 0


def test_offline_the_index_becomes_sql(connection: Connection) -> None:
    script = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql",
        opts={"as_sql": True, "literal_binds": True, "output_buffer": script},
    )
    with Operations.context(context) as operations:
        operations.create_oban_args_index(prefix="jobs")  # type: ignore[attr-defined]
    written = script.getvalue()
    assert f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {INDEX} ON jobs.oban_jobs" in written
    assert written.index("COMMIT") < written.index("CREATE") < written.index("BEGIN")


def test_an_offline_upgrade_keeps_the_index(connection: Connection, installed: Connection) -> None:
    create_args_index(connection)
    connection.execute(text("DELETE FROM oban_sqla_version"))
    upgrade(connection)
    connection.commit()
    assert schemas(connection) == ["public"]
