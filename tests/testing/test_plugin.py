"""The pytest plugin, in runs of a user's test suite."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.forked import Python

Run = Callable[..., pytest.RunResult]

# By the name of its entry point.
OPTIONS = ("-p", "oban_sqla", "-p", "no:cacheprovider", "-W", "error")
# A forked process has imported the package already.
FORKED = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")

SUITE = """
import asyncio

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Session

from oban_sqla import Job, Record, Worker
from oban_sqla.testing import assert_enqueued, drain_queue
from oban_sqla.testing.factory import JobFactory


class Greet(Worker, queue="greetings"):
    async def process(self, job: Job):
        return Record(f"hello {job.args['name']}")


@pytest.fixture
def session(oban_postgres, oban_schema):
    url = make_url(oban_postgres).set(drivername="postgresql+psycopg")
    schemas = {"schema_translate_map": {None: oban_schema}}
    engine = create_engine(url, execution_options=schemas)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.mark.parametrize("n", range(4))
def test_a_sync_session(session, n):
    session.add_all([Greet.new({"name": "ann"}), JobFactory(completed=True)])
    job = assert_enqueued(session, worker=Greet)
    assert drain_queue(session, "greetings")["completed"] == 1
    assert job.recorded == "hello ann"


def test_an_instance(oban):
    async def run():
        job = await oban.enqueue(Greet.new({"name": "bob"}))
        async with oban:
            await oban.start_queue(queue="greetings", limit=1)
            return (await oban.wait(job, timeout=30)).recorded

    assert asyncio.run(run()) == "hello bob"


@pytest.mark.parametrize("n", range(2))
def test_the_server_is_one(oban_postgres, n):
    with open("servers.txt", "a") as file:
        print(oban_postgres, file=file)
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use no server of this run, and no other plugins, since loading all of them takes seconds."""
    for variable in ("OBAN_TEST_DSN", "OBAN_TEST_POSTGRES_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def run(python: Python, pytester: pytest.Pytester) -> Run:
    """Run pytest in a forked process on the files that `pytester` has written."""

    def run(*options: str) -> pytest.RunResult:
        done = python.run("-m", "pytest", *options, *FORKED, cwd=pytester.path)
        said, told = done.stdout.splitlines(), done.stderr.splitlines()
        return pytest.RunResult(done.returncode, said, told, 0.0)

    return run


@pytest.mark.parametrize("distributed", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "xdist"])
def test_the_plugin_has_fixtures(
    pytester: pytest.Pytester, run: Run, distributed: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_greet=SUITE)
    run(*OPTIONS, *distributed).assert_outcomes(passed=7)
    (dsn,) = set((pytester.path / "servers.txt").read_text().splitlines())
    data = Path(str(make_url(dsn).query["host"]))
    directory = next(one for one in data.parents if one.name.startswith("oban-sqla-pytest-"))
    assert not directory.exists(), "it is gone with the run"


@pytest.mark.parametrize(
    "options",
    [
        ("-p", "oban_sqla"),
        ("-p", "pytest_oban_sqla"),
        ("-p", "pytest_oban_sqla", "-p", "oban_sqla"),
        ("-p", "oban_sqla", "-p", "pytest_oban_sqla"),
        (),
    ],
)
def test_the_plugin_may_be_named_besides_its_entry_point(
    pytester: pytest.Pytester, run: Run, options: tuple[str, ...]
) -> None:
    pytester.makeconftest('pytest_plugins = ["pytest_oban_sqla"]')
    pytester.makepyfile("def test_is_there(request): request.getfixturevalue('oban_postgres')")
    done = run(*options, "--fixtures", "-p", "no:cacheprovider")
    assert done.ret == 0
    done.stdout.fnmatch_lines("oban_schema *")


def test_the_plugin_imports_nothing_until_it_is_used() -> None:
    """pytest always loads the plugin, so it must load fast, and need no optional package."""
    code = (
        "import sys, pytest, pytest_oban_sqla;"
        " print({'oban_sqla', 'sqlalchemy', 'factory'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_dsn_may_name_another_server(
    pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch, postgres_dsn: str
) -> None:
    monkeypatch.setenv("OBAN_TEST_DSN", postgres_dsn)
    pytester.makepyfile(test_greet=SUITE)
    run(*OPTIONS).assert_outcomes(passed=7)
    assert set((pytester.path / "servers.txt").read_text().splitlines()) == {postgres_dsn}


@pytest.mark.parametrize(
    ("missing", "use", "extra"),
    [
        ("factory", "import oban_sqla.testing.factory", "oban-sqla[testing]"),
        ("psutil", "request.getfixturevalue('oban_postgres')", "oban-sqla[embedded]"),
    ],
)
def test_a_missing_extra_is_named(
    pytester: pytest.Pytester, run: Run, missing: str, use: str, extra: str
) -> None:
    pytester.makepyfile(
        f"""
        import sys

        def test_without(request):
            sys.modules[{missing!r}] = None  # as if it were not installed
            {use}
        """
    )
    done = run(*OPTIONS)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    assert f"pip install '{extra}'" in done.stdout.str()


SESSIONS = """
import pytest
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from oban_sqla import Job, Worker
from oban_sqla.testing import drain_queue


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    greeted: Mapped[bool | None]


@pytest.fixture
def oban_metadata():
    return Base.metadata


class Greet(Worker):
    async def process(self, job: Job, session):
        (await session.get_one(User, job.args["id"])).greeted = True


@pytest.mark.asyncio
@pytest.mark.parametrize("n", range(2))
async def test_a_session(oban_session, n):
    assert (await oban_session.scalars(select(User))).all() == []
    oban_session.add_all([user := User(id=1), Greet.new({"id": 1})])
    await oban_session.commit()
    await drain_queue(oban_session)
    assert user.greeted


@pytest.mark.parametrize("n", range(2))
def test_a_sync_session(oban_sync_session, n):
    assert oban_sync_session.scalars(select(User)).all() == []
    oban_sync_session.add_all([user := User(id=1), Greet.new({"id": 1})])
    oban_sync_session.commit()
    drain_queue(oban_sync_session)
    assert user.greeted
"""


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_sessions_of_the_plugin_roll_back(
    pytester: pytest.Pytester,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    postgres_dsn: str,
    mode: str,
) -> None:
    monkeypatch.setenv("OBAN_TEST_DSN", postgres_dsn)
    pytester.makepyfile(test_sessions=SESSIONS)
    loop = "asyncio_default_fixture_loop_scope=function"
    options = ("-p", "pytest_asyncio.plugin", "-o", f"asyncio_mode={mode}", "-o", loop)
    done = run(*OPTIONS, *options)
    done.assert_outcomes(passed=4)
