"""`oban-sqla start`: a process that runs jobs until a signal."""

import signal
import tempfile
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.cli.conftest import Cli, Say, Spawn
from tests.forked import Process

WORKERS = """
import asyncio
import gc
import time

from oban_sqla import worker

LOADED = []


@worker()
class Quick:
    async def process(self, job):
        print("ran", job.id, flush=True)


@worker()
class Slow:
    async def process(self, job):
        print("begun", job.id, flush=True)
        await asyncio.sleep(job.args["seconds"])
        print("ran", job.id, flush=True)


@worker()
class Blocking:
    async def process(self, job):
        print("begun", job.id, flush=True)
        time.sleep(job.args["seconds"])


@worker()
class Collected:
    async def process(self, job):
        found = any(one is LOADED for one in gc.get_objects())
        print("modules:", "collected" if found else "left out", flush=True)
"""


@pytest.fixture(autouse=True)
def app(tmp_path: Path) -> None:
    package = tmp_path / "app"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "workers.py").write_text(WORKERS)
    (package / "needs.py").write_text("import no_such_dependency\n")
    (package / "fails.py").write_text("\nraise LookupError('no settings')\n")
    (package / "exits.py").write_text("raise SystemExit('not a module')\n")
    (package / "broken.py").write_text("def f(:\n")
    (package / "imports_broken.py").write_text("import app.broken\n")


def enqueue(dsn: str, prefix: str, worker: str, seconds: float = 0) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("INSERT INTO {} (worker, args) VALUES (%s, jsonb_build_object('seconds', %s))")
            .format(sql.Identifier(prefix, "oban_jobs")),
            [f"app.workers.{worker}", seconds],
        )  # fmt: skip


def states(dsn: str, prefix: str) -> list[tuple[str, int]]:
    with psycopg.connect(dsn) as connection:
        query = sql.SQL("SELECT state::text, attempt FROM {} ORDER BY id")
        table = sql.Identifier(prefix, "oban_jobs")
        return connection.execute(query.format(table)).fetchall()


def wait_for(process: Process, text: str) -> str:
    """The next line with the text, skipping those before it."""
    before = []
    for line in process.stdout:
        if text in line:
            return line
        before.append(line)
    raise AssertionError(f"no {text!r} in: {''.join(before)}")


def end(process: Process) -> str:
    return process.communicate(timeout=30)[0]


def at(dsn: str, prefix: str) -> list[str]:
    return ["--import", "app.workers", "--queues", "default:5", "--dsn", dsn, "--prefix", prefix]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_start_runs_jobs_until_a_signal(
    spawn: Spawn, postgres_dsn: str, prefix: str, number: signal.Signals
) -> None:
    enqueue(postgres_dsn, prefix, "Quick")
    enqueue(postgres_dsn, prefix, "Slow", 0.5)
    process = spawn("start", *at(postgres_dsn, prefix), "--node", "n1")
    wait_for(process, "begun 2")
    process.send_signal(number)
    said = end(process)
    assert process.returncode == 0, said
    assert f"{number.name}: stopping" in said
    assert "ran 2" in said  # the process has ended
    assert states(postgres_dsn, prefix) == [("completed", 1)] * 2


def test_the_garbage_collector_leaves_out_what_was_loaded_before_the_start(
    spawn: Spawn, postgres_dsn: str, prefix: str
) -> None:
    enqueue(postgres_dsn, prefix, "Collected")
    process = spawn("start", *at(postgres_dsn, prefix))
    assert wait_for(process, "modules: ") == "modules: left out\n"
    process.terminate()
    end(process)


def test_jobs_that_exceed_the_grace_period_go_back(
    spawn: Spawn, postgres_dsn: str, prefix: str
) -> None:
    enqueue(postgres_dsn, prefix, "Slow", 60)
    process = spawn("start", *at(postgres_dsn, prefix), "--grace", "0.1")
    wait_for(process, "begun 1")
    process.terminate()
    said = end(process)
    assert process.returncode == 0, said
    assert states(postgres_dsn, prefix) == [("available", 0)]


def test_a_second_signal_ends_the_process_at_once(
    spawn: Spawn, postgres_dsn: str, prefix: str
) -> None:
    enqueue(postgres_dsn, prefix, "Slow", 60)
    process = spawn("start", *at(postgres_dsn, prefix))
    wait_for(process, "begun 1")
    process.terminate()
    wait_for(process, "stopping")
    process.terminate()
    said = end(process)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "a second signal: ended at once" in said
    assert states(postgres_dsn, prefix) == [("executing", 1)]


def test_a_worker_that_blocks_the_loop_can_be_ended(
    spawn: Spawn, postgres_dsn: str, prefix: str
) -> None:
    enqueue(postgres_dsn, prefix, "Blocking", 60)
    process = spawn("start", *at(postgres_dsn, prefix))
    wait_for(process, "begun 1")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    said = end(process)
    assert process.returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT), said


def test_the_environment_gives_the_dsn(spawn: Spawn, postgres_dsn: str, prefix: str) -> None:
    arguments = ["--import", "app.workers", "--queues", "default:1", "--prefix", prefix]
    process = spawn("start", *arguments, dsn=postgres_dsn)
    wait_for(process, "runs default")
    process.terminate()
    end(process)
    assert process.returncode == 0


ORDERS = [
    ["--embedded", "--import", "app.workers", "--queues", "default:1"],
    ["--import", "app.workers", "--queues", "default:1", "--embedded"],
]


@pytest.mark.parametrize("arguments", ORDERS)
def test_a_temporary_embedded_server_ends_with_the_process(
    spawn: Spawn, arguments: list[str]
) -> None:
    process = spawn("start", *arguments, dsn="postgresql://localhost:1/not_this_one")
    dsn = wait_for(process, "PostgreSQL is up:").split()[-1]
    wait_for(process, "runs default")
    enqueue(dsn, "public", "Quick")
    process.terminate()
    said = end(process)
    assert process.returncode == 0, said
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)


def test_an_embedded_server_keeps_its_directory(spawn: Spawn) -> None:
    with tempfile.TemporaryDirectory(prefix="oban-") as directory:
        for form in (["--embedded", directory], [f"--embedded={directory}"]):
            process = spawn("start", *form, "--import", "app.workers", "--queues", "idle:1")
            dsn = wait_for(process, "PostgreSQL is up:").split()[-1]
            wait_for(process, "runs idle")
            enqueue(dsn, "public", "Quick")
            found = states(dsn, "public")
            process.terminate()
            said = end(process)
            assert process.returncode == 0, said
        assert found == [("available", 0)] * 2


def test_a_second_signal_ends_the_embedded_server(spawn: Spawn) -> None:
    process = spawn("start", *ORDERS[0])
    dsn = wait_for(process, "PostgreSQL is up:").split()[-1]
    enqueue(dsn, "public", "Slow", 60)
    wait_for(process, "runs default")
    process.terminate()
    process.send_signal(signal.SIGINT)
    end(process)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)


def test_a_signal_during_the_start_ends_the_process(spawn: Spawn) -> None:
    process = spawn("start", *ORDERS[0])
    dsn = wait_for(process, "PostgreSQL is up:").split()[-1]
    process.terminate()
    said = end(process)
    assert process.returncode == 0, said
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)


@pytest.mark.parametrize(
    ("module", "message", "place"),
    [
        ("nothing", "ModuleNotFoundError: No module named 'app.nothing'", ""),
        ("needs", "ModuleNotFoundError: No module named 'no_such_dependency'", "needs.py, line 1)"),
        ("fails", "LookupError: no settings", "fails.py, line 2)"),
        ("exits", "SystemExit: not a module", ""),
        ("imports_broken", "SyntaxError:", "app/broken.py, line 1)"),
    ],
)
def test_a_module_that_can_not_be_imported_is_named(
    call: Say, module: str, message: str, place: str
) -> None:
    done = call(
        *("start", "--import", f"app.{module}", "--queues", "default:1"),
        *("--dsn", "postgresql://localhost:1/x"),
        code=1,
    )
    assert f"can't import 'app.{module}': {message}" in done.stderr
    assert place in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("queues", "message"),
    [
        ("default", "'default' is not a queue with its limit, like default:10"),
        ("default:", "'default:' is not"),
        (":10", "':10' is not"),
        ("default:ten", "'default:ten' is not"),
        ("default:0", "'default:0' is not"),
        ("default:-1", "'default:-1' is not"),
        ("a:1,,b:2", "'' is not"),
        ("a:1,a:2", "queue 'a' is named twice"),
    ],
)
def test_queues_in_a_wrong_form_are_refused(call: Say, queues: str, message: str) -> None:
    arguments = ["--import", "app.workers", "--queues", queues, "--dsn", "postgresql://localhost/x"]
    assert message in call("start", *arguments, code=2).stderr


def test_a_start_without_a_database_is_refused(call: Say) -> None:
    done = call("start", "--import", "app.workers", "--queues", "default:1", code=2)
    assert "--dsn or OBAN_DSN" in done.stderr


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        ("postgresql://localhost:1/app", "connection to server at"),
        ("mysql://localhost/app", "postgresql://"),
        ("host=localhost", "postgresql://user:password@host"),
    ],
)
def test_a_missing_database_is_named(call: Say, dsn: str, message: str) -> None:
    done = call("start", "--import", "app.workers", "--queues", "default:1", "--dsn", dsn, code=1)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_missing_tables_are_named(call: Say, postgres_dsn: str, new_prefix: str) -> None:
    done = call("start", *at(postgres_dsn, new_prefix), code=1)
    assert "oban-sqla schema upgrade" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_directory_that_can_not_be_made_is_named(call: Say, here: Path) -> None:
    (here / "file").touch()
    arguments = ["--import", "app.workers", "--queues", "default:1"]
    done = call("start", "--embedded", "file/data", *arguments, code=1)
    assert "file/data" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_the_debug_log_has_the_traceback_of_a_failure(cli: Cli) -> None:
    arguments = ["--queues", "default:1", "--dsn", "postgresql://localhost/x"]
    done = cli("start", "--import", "app.fails", *arguments, "--log-level", "debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_start_names_its_event_loop(
    spawn: Spawn, postgres_dsn: str, prefix: str, tmp_path: Path, loop: str
) -> None:
    pytest.importorskip("uvloop")
    if loop == "asyncio":
        (tmp_path / "uvloop.py").write_text("raise ModuleNotFoundError('uvloop')")
    enqueue(postgres_dsn, prefix, "Quick")
    process = spawn("start", *at(postgres_dsn, prefix), "--node", "n1")
    assert f"node n1 runs default, on {loop}" in wait_for(process, "node n1 runs")
    wait_for(process, "ran 1")
    process.terminate()
    assert "SIGTERM: stopping" in end(process)
    assert process.returncode == 0


def test_start_uses_the_engine_and_sessions_of_the_user(
    spawn: Spawn, postgres_dsn: str, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "app" / "db.py").write_text(
        f"""
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from oban_sqla import worker

class OwnSession(AsyncSession): ...

url = make_url({postgres_dsn!r}).set(drivername="postgresql+psycopg")
schemas = {{"schema_translate_map": {{None: {prefix!r}}}}}
engine = create_async_engine(url, execution_options=schemas, pool_size=3)
Session = async_sessionmaker(class_=OwnSession)

@worker()
class Own:
    async def process(self, job, session):
        print("session", type(session).__name__, session.bind is engine.sync_engine, flush=True)
        print("session of", session.bind.pool.size(), flush=True)
"""
    )
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        table = sql.Identifier(prefix, "oban_jobs")
        connection.execute(sql.SQL("INSERT INTO {} (worker) VALUES ('app.db.Own')").format(table))
    paths = ["--engine", "app.db:engine", "--session", "app.db:Session"]
    process = spawn("start", "--import", "app.db", "--queues", "default:5", *paths)
    wait_for(process, "session OwnSession")
    assert "session of 3" in wait_for(process, "session of")
    process.terminate()
    end(process)
    assert process.returncode == 0


def test_reload_restarts_when_the_code_changes(
    spawn: Spawn, postgres_dsn: str, prefix: str, tmp_path: Path
) -> None:
    pytest.importorskip("watchfiles")
    process = spawn("start", *at(postgres_dsn, prefix), "--reload")
    wait_for(process, "runs default")
    module = tmp_path / "app" / "workers.py"
    module.write_text(module.read_text().replace('print("ran"', 'print("changed"'))
    wait_for(process, "workers.py changed: starting again")
    wait_for(process, "runs default")
    enqueue(postgres_dsn, prefix, "Quick")
    wait_for(process, "changed 1")
    process.terminate()
    end(process)
    assert process.returncode == 0
