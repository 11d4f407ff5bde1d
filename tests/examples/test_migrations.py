"""The histories of two apps, with the real `alembic`. One app's metadata has our models."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from oban_sqla.migrations import LATEST
from oban_sqla.statements.inspect import TABLES
from tests.examples.conftest import ROOT, AlembicError, alembic

pytestmark = pytest.mark.examples

OWN = {"fastapi_app": {"days", "orders", "products"}, "flask_app": {"bookmarks"}}


@dataclass
class Project:
    """A copy of an app, into which autogenerate may write, and its database."""

    app: str
    directory: Path
    database_url: str
    dsn: str
    prefix: str | None

    @property
    def said(self) -> str:
        """The argument by which a revision names the schema of the jobs."""
        return f", prefix={self.prefix!r}" if self.prefix else ""

    def alembic(self, *arguments: str) -> str:
        return alembic(self.directory, *arguments, DATABASE_URL=self.database_url)

    def rewrite(self, pattern: str, replacement: str, name: str = "versions/*.py") -> None:
        for path in self.directory.glob(f"migrations/{name}"):
            path.write_text(re.sub(pattern, replacement, path.read_text()))

    def generate(self) -> str:
        """The revision that autogenerate writes."""
        before = set(self.directory.glob("migrations/versions/*.py"))
        self.alembic("revision", "--autogenerate", "-m", "generated")
        (path,) = {*self.directory.glob("migrations/versions/*.py")} - before
        return path.read_text()

    def execute(self, statement: str) -> list[tuple]:
        with psycopg.connect(self.dsn) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def tables(self) -> set[str]:
        """The existing tables without Alembic's own; our tables have their schema."""
        rows = self.execute(
            "SELECT schemaname, tablename FROM pg_tables"
            " WHERE schemaname !~ '^pg_|^information_schema$' AND tablename <> 'alembic_version'"
        )
        return {table if schema == "public" else f"{schema}.{table}" for schema, table in rows}

    def all_tables(self) -> set[str]:
        ours = (f"{self.prefix}.{table}" if self.prefix else table for table in TABLES)
        return {*ours, *OWN[self.app]}


@pytest.fixture
def project(
    request: pytest.FixtureRequest, tmp_path: Path, database_url: str, database_dsn: str
) -> Project:
    app, prefix = request.param
    directory = tmp_path / "examples" / app
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "examples" / app, directory, ignore=ignored)
    project = Project(app, directory, database_url, database_dsn, prefix)
    if prefix is not None:
        project.rewrite(r"(grade_oban\(version=\d+)", rf'\1, prefix="{prefix}"')
        project.rewrite("(postgresql_using=)", rf'schema="{prefix}", \1')
        project.rewrite("(target_metadata=)", rf'oban_prefix="{prefix}", \1', "env.py")
    return project


def of(app: str, prefix: str | None) -> object:
    """A project, with the tables of the jobs in their own schema or not."""
    return pytest.param((app, prefix), id=f"{app}-{prefix or 'public'}")


here_or_there = pytest.mark.parametrize(
    "project", [of("fastapi_app", None), of("flask_app", "jobs")], indirect=True
)
there_or_here = pytest.mark.parametrize(
    "project", [of("fastapi_app", "jobs"), of("flask_app", None)], indirect=True
)


@here_or_there
def test_the_migrations_run_on_an_empty_database(project: Project) -> None:
    project.alembic("upgrade", "head")
    assert project.tables() >= project.all_tables()
    assert "No new upgrade operations" in project.alembic("check")
    project.alembic("downgrade", "base")
    assert project.tables() == set()


@there_or_here
def test_offline_migrations_become_sql(project: Project) -> None:
    project.execute(project.alembic("upgrade", "head", "--sql"))
    assert project.tables() >= project.all_tables()
    assert "No new upgrade operations" in project.alembic("check")
    project.execute(project.alembic("downgrade", "head:base", "--sql"))
    assert project.tables() == set()


@there_or_here
def test_autogenerate_writes_the_migrations_from_nothing(project: Project) -> None:
    for path in project.directory.glob("migrations/versions/*.py"):
        path.unlink()
    written = project.generate()
    assert f"op.upgrade_oban(version={LATEST}{project.said})" in written
    assert f"op.downgrade_oban(version=0{project.said})" in written
    assert {*re.findall(r"create_table\('(\w+)'", written)} == OWN[project.app]
    project.alembic("upgrade", "head")
    assert project.tables() >= project.all_tables()
    assert "No new upgrade operations" in project.alembic("check")


@here_or_there
def test_autogenerate_upgrades_an_older_version(project: Project) -> None:
    project.rewrite(r"upgrade_oban\(version=\d+", "upgrade_oban(version=1")
    project.alembic("upgrade", "head")
    jobs = f"{project.prefix}.oban_jobs" if project.prefix else "oban_jobs"
    project.execute(f"INSERT INTO {jobs} (worker) SELECT 'w' FROM generate_series(1, 3)")
    with pytest.raises(AlembicError, match=f"upgrade_oban', {LATEST}"):
        project.alembic("check")

    written = project.generate()
    assert f"op.upgrade_oban(version={LATEST}{project.said})" in written
    assert f"op.downgrade_oban(version=1{project.said})" in written
    assert len(re.findall(r"\bop\.", written)) == 2

    project.alembic("upgrade", "head")
    assert "No new upgrade operations" in project.alembic("check")
    project.alembic("downgrade", "-1")
    assert project.execute(f"SELECT count(*) FROM {jobs}") == [(3,)]
