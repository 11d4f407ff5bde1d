"""The built wheel, installed without the repository, installs the schema and runs jobs."""

import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import psycopg
import pytest

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parents[2]

WORKERS = """
from oban_sqla import Job, Record, Worker

class Double(Worker):
    async def process(self, job: Job) -> Record:
        return Record(2 * job.args["n"])
"""

ENQUEUE = """
import sys
from doubling import Double
from sqlalchemy import create_engine, make_url
from sqlalchemy.orm import Session

url = make_url(sys.argv[1]).set(drivername="postgresql+psycopg")
with Session(create_engine(url)) as session, session.begin():
    session.add(Double.new({"n": 21}))
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The scripts of a new virtual environment: the wheel with its extras `cli` and `web`."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("oban_sqla-*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / "bin"
    subprocess.run([scripts / "pip", "install", "-q", f"{wheel}[cli,web]"], check=True)
    return scripts


def test_a_job_runs_with_only_the_wheel_installed(
    environment: Path, database_dsn: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "doubling.py").write_text(WORKERS)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def call(*command: str | Path) -> str:
        return subprocess.run(
            command, cwd=home, env=clean, check=True, capture_output=True, text=True
        ).stdout

    assert str(ROOT) not in call(environment / "python", "-c", "import oban_sqla as o; print(o)")
    # The dashboard has its templates and static files.
    files = "from oban_sqla.web.show import environment as e, version_of as v"
    files += "; assert len(e().list_templates()) > 10"
    named = "['app.css', 'app.js', 'htmx.min.js', 'htmx.LICENSE.txt', 'theme.js', 'icon.svg']"
    call(environment / "python", "-c", f"{files}; [v(n) for n in {named}]")
    # Alembic loads the plugin by its entry point.
    plugin = "from alembic.operations import Operations as o; print(hasattr(o, 'upgrade_oban'))"
    assert call(environment / "python", "-c", plugin) == "True\n"
    call(environment / "oban-sqla", "schema", "upgrade", "--dsn", database_dsn)
    call(environment / "python", "-c", ENQUEUE, database_dsn)
    start = [environment / "oban-sqla", "start", "--import", "doubling", "--queues", "default:2"]
    with subprocess.Popen([*start, "--dsn", database_dsn], cwd=home, env=clean) as node:
        try:
            assert recorded(database_dsn, node) == 42
        finally:
            node.send_signal(signal.SIGTERM)
    assert node.returncode == 0


def recorded(database_dsn: str, node: subprocess.Popen[bytes]) -> object:
    """Wait until the job is completed, and return its recorded value."""
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        # The server waits, and the query is repeated after another transaction may have written.
        for _ in range(300):
            row = connection.execute(
                "SELECT meta->'return' FROM oban_jobs WHERE state = 'completed'"
            ).fetchone()
            if row is not None:
                return row[0]
            assert node.poll() is None, "the node has ended"
            connection.execute("SELECT pg_sleep(0.1)")
    return None
