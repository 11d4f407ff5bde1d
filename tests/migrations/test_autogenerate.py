"""A user's Alembic project, whose env.py does not mention us. Autogenerate finds the plugin."""

from pathlib import Path
from textwrap import dedent

import pytest
from alembic import command
from alembic.config import Config
from alembic.runtime.plugins import Plugin
from alembic.util import CommandError
from sqlalchemy import Connection, inspect, text

from oban_sqla.migrations import LATEST, current, plugin, upgrade

ENV = """
from alembic import context
from sqlalchemy import Column, Integer, MetaData, Table
from oban_sqla.models import metadata as oban_metadata

own = MetaData()
Table("orders", own, Column("id", Integer, primary_key=True))
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata={metadata},
    {options}
)
with context.begin_transaction():
    context.run_migrations()
"""


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    """Register the plugin, since Alembic only finds it if the package is installed."""
    try:
        Plugin.setup_plugin_from_module(plugin, plugin.NAME)
    except ValueError as error:
        assert "already registered" in str(error)  # noqa: PT017 - then it was found


class Project:
    """An Alembic project in a directory of its own."""

    def __init__(self, directory: Path, connection: Connection) -> None:
        self.directory = directory
        self._connection = connection
        self.config = Config()
        self.config.set_main_option("script_location", str(directory))
        self.config.attributes["connection"] = connection
        (directory / "versions").mkdir()
        (directory / "script.py.mako").write_text(MAKO)
        self.write_env()

    def write_env(self, metadata: str = "own", options: str = "") -> None:
        (self.directory / "env.py").write_text(ENV.format(metadata=metadata, options=options))

    def revise(self) -> str:
        """The text of the revision that autogenerate writes."""
        script = command.revision(self.config, "a change", autogenerate=True)
        self._connection.commit()
        assert script is not None
        assert not isinstance(script, list)
        return Path(script.path).read_text()

    def upgrade(self, revision: str = "head") -> None:
        command.upgrade(self.config, revision)
        self._connection.commit()

    def downgrade(self, revision: str) -> None:
        command.downgrade(self.config, revision)
        self._connection.commit()

    def check(self) -> None:
        """Raise an error if autogenerate would write anything."""
        command.check(self.config)
        self._connection.commit()


MAKO = dedent(
    '''
    """${message}"""
    from alembic import op
    import sqlalchemy as sa
    ${imports if imports else ""}
    revision = ${repr(up_revision)}
    down_revision = ${repr(down_revision)}

    def upgrade():
        ${upgrades if upgrades else "pass"}

    def downgrade():
        ${downgrades if downgrades else "pass"}
    '''
)


@pytest.fixture
def project(tmp_path: Path, connection: Connection) -> Project:
    directory = tmp_path / "migrations"
    directory.mkdir()
    return Project(directory, connection)


@pytest.mark.parametrize(
    ("metadata", "prefix"),
    [("own", None), ("[own, oban_metadata]", "jobs")],
    ids=["alone", "with ours in a schema"],
)
def test_autogenerate_writes_a_migration_from_no_tables(
    project: Project, connection: Connection, metadata: str, prefix: str | None
) -> None:
    project.write_env(metadata, f"oban_prefix={prefix!r}" if prefix else "")
    written = project.revise()
    said = f"version={LATEST}" + (f", prefix={prefix!r}" if prefix else "")
    assert f"op.upgrade_oban({said})" in written
    assert "op.create_table('orders'" in written
    assert "create_table('oban" not in written
    project.upgrade()
    assert current(connection, prefix=prefix) == LATEST
    project.check()
    project.downgrade("base")
    assert current(connection, prefix=prefix) == 0
    assert inspect(connection).get_table_names() == ["alembic_version"]


def test_autogenerate_repairs_a_schema_that_lost_a_part(
    project: Project, connection: Connection
) -> None:
    upgrade(connection)
    connection.execute(text("DROP TABLE oban_sqla_cron"))
    connection.commit()
    written = project.revise()
    assert f"op.upgrade_oban(version={LATEST})" in written
    # Another migration created everything.
    assert f"op.downgrade_oban(version={LATEST})" in written
    project.upgrade()
    project.check()


@pytest.mark.parametrize(
    ("metadata", "prefix"),
    [("own", None), ("[own, oban_metadata]", "jobs")],
    ids=["alone", "with ours in a schema"],
)
def test_autogenerate_upgrades_an_older_version(
    project: Project, connection: Connection, metadata: str, prefix: str | None
) -> None:
    upgrade(connection, version=1, prefix=prefix)
    connection.commit()
    project.write_env(metadata)
    written = project.revise()
    said = f", prefix={prefix!r}" if prefix else ""
    assert f"op.upgrade_oban(version={LATEST}{said})" in written
    assert f"op.downgrade_oban(version=1{said})" in written
    project.upgrade()
    assert current(connection, prefix=prefix) == LATEST
    project.check()
    project.downgrade("base")
    assert current(connection, prefix=prefix) == 1


@pytest.mark.parametrize("metadata", ["own", "[own, oban_metadata]"], ids=["alone", "with ours"])
@pytest.mark.parametrize("options", ["", "include_schemas=True"])
def test_our_tables_are_neither_dropped_nor_changed(
    project: Project, connection: Connection, metadata: str, options: str
) -> None:
    upgrade(connection)
    upgrade(connection, prefix="jobs")
    # A user's history must not undo manual changes of our tables.
    connection.execute(text("CREATE INDEX of_the_dba ON oban_jobs (worker)"))
    connection.execute(text("ALTER TABLE jobs.oban_jobs ADD COLUMN note text"))
    connection.commit()
    project.write_env(metadata, options)
    written = project.revise()
    assert "oban" not in written
    assert "of_the_dba" not in written
    project.upgrade()
    project.check()


@pytest.mark.parametrize(
    ("metadata", "options"), [("own", "include_schemas=True"), ("[own, oban_metadata]", "")]
)
def test_tables_that_are_up_to_date_are_not_logged(
    project: Project,
    connection: Connection,
    metadata: str,
    options: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    upgrade(connection)
    upgrade(connection, prefix="jobs")
    connection.execute(text("CREATE INDEX of_the_dba ON oban_jobs (worker)"))
    connection.commit()
    project.write_env(metadata, options)
    caplog.set_level("INFO", logger="alembic.autogenerate")
    project.revise()
    assert [record.message for record in caplog.records if "alembic.auto" in record.name] == [
        "Detected added table 'orders'"
    ]
    project.upgrade()
    caplog.clear()
    project.check()
    assert [record.message for record in caplog.records if "alembic.auto" in record.name] == []


@pytest.mark.parametrize(
    ("version", "prefix", "said"),
    [
        (None, None, f"Detected no tables of oban_sqla, not version {LATEST}"),
        (1, "jobs", f"Detected version 1 of oban_sqla in schema 'jobs', not version {LATEST}"),
    ],
)
def test_a_change_of_our_tables_is_logged(
    project: Project,
    connection: Connection,
    version: int | None,
    prefix: str | None,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if version is not None:
        upgrade(connection, version=version, prefix=prefix)
        connection.commit()
    project.write_env("MetaData()")
    caplog.set_level("INFO", logger="alembic.autogenerate")
    project.revise()
    assert [record.message for record in caplog.records if "alembic.auto" in record.name] == [said]


def test_filters_of_the_user_still_apply(project: Project, connection: Connection) -> None:
    upgrade(connection)
    connection.execute(text("CREATE TABLE legacy (id int)"))
    connection.commit()
    project.write_env(
        options="include_name=lambda name, *rest: name != 'legacy',"
        " include_object=lambda one, name, *rest: name != 'orders'"
    )
    written = project.revise()
    assert "legacy" not in written
    assert "orders" not in written


def test_check_reports_a_schema_that_is_behind(project: Project, connection: Connection) -> None:
    project.write_env("MetaData()")
    upgrade(connection, version=1)
    connection.commit()
    with pytest.raises(CommandError, match=rf"upgrade_oban', {LATEST}"):
        project.check()
    connection.rollback()


def test_offline_the_generated_migration_becomes_sql(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.revise()
    command.upgrade(project.config, "head", sql=True)
    assert "CREATE TABLE IF NOT EXISTS oban_jobs" in capsys.readouterr().out


def test_the_plugin_can_be_turned_off(project: Project) -> None:
    project.write_env(options=f'autogenerate_plugins=["alembic.autogenerate.*", "~{plugin.NAME}"],')
    assert "oban" not in project.revise()
