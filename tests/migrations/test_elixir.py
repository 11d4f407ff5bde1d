"""A table of Oban for Elixir: refused with the reason, and adopted after it is converted."""

import io
import re
from pathlib import Path

import psycopg
import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from oban_sqla import Job, JobState, ObanError, Worker
from oban_sqla.config import Config
from oban_sqla.doctor.examination import examine
from oban_sqla.dsn import database_url
from oban_sqla.migrations import LATEST, upgrade
from oban_sqla.runtime.database import Database
from tests.conftest import StartOban
from tests.docs.page import DOCS
from tests.listening import hear

ELIXIR = Path(__file__).with_name("oban_elixir_14.sql").read_text()
ROWS = """
INSERT INTO oban_jobs (worker, queue, state, attempt, errors, meta, tags, attempted_by)
VALUES ('elixir.mail', 'mails', 'retryable', 2,
        ARRAY['{"attempt": 1, "at": "2026-11-30T12:00:00Z", "error": "boom"}'::jsonb,
              '{"attempt": 2, "at": "2026-11-30T12:01:00Z", "error": "again"}'::jsonb],
        NULL, NULL, NULL),
       ('elixir.mail', 'mails', 'available', 0, '{}', '{"k": 1}', '{a}', NULL);
"""


def run(connection: Connection, script: str) -> None:
    connection.execute(text(script.replace(":", r"\:")))


def convert(connection: Connection) -> None:
    """Convert the table as the docs say."""
    page = (DOCS / "next_to_oban.md").read_text()
    (recipe,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    run(connection, recipe)


@pytest.fixture
def elixir(connection: Connection) -> Connection:
    run(connection, ELIXIR)
    run(connection, ROWS)
    connection.commit()
    return connection


@pytest.mark.parametrize("prefix", [None, "public"])
def test_a_schema_of_elixir_is_refused_unchanged(elixir: Connection, prefix: str | None) -> None:
    with pytest.raises(ObanError, match=r"Oban for Elixir: its column errors is jsonb\[\]"):
        upgrade(elixir, prefix=prefix)
    assert set(inspect(elixir).get_table_names()) == {"oban_jobs", "oban_peers"}


def test_an_offline_script_refuses_a_schema_of_elixir(elixir: Connection) -> None:
    script = io.StringIO()
    opts = {"as_sql": True, "literal_binds": True, "output_buffer": script}
    context = MigrationContext.configure(dialect_name="postgresql", opts=opts)
    with Operations.context(context) as operations:
        operations.upgrade_oban()  # type: ignore[attr-defined]
    with pytest.raises(psycopg.errors.RaiseException, match="made by Oban for Elixir"):
        elixir.connection.driver_connection.execute(script.getvalue())  # type: ignore[union-attr]
    elixir.rollback()


def test_our_tables_may_be_in_another_schema_beside_it(elixir: Connection) -> None:
    assert upgrade(elixir, prefix="jobs")[-1] == LATEST


class Mail(Worker, name="elixir.mail", queue="mails"):
    async def process(self, job: Job) -> None:
        if "fail" in job.tags:
            raise ValueError("once more")


async def test_the_doctor_names_an_adopted_schema_of_elixir(
    elixir: Connection, database_dsn: str
) -> None:
    run(elixir, "CREATE TABLE other AS SELECT 1")
    elixir.commit()
    convert(elixir)
    upgrade(elixir)
    run(elixir, "ALTER TABLE oban_jobs ALTER COLUMN errors DROP DEFAULT")
    run(elixir, "ALTER TABLE oban_jobs ALTER COLUMN errors TYPE jsonb[] USING '{}'::jsonb[]")
    elixir.commit()
    database = Database(database_url(database_dsn), None)
    found = [one async for one in examine(database, Config.check(), latest=LATEST)]
    await database.dispose()
    (schema,) = (one for one in found if one.check == "schema")
    assert schema.level == "problem"
    assert "column errors is jsonb[]" in schema.text
    assert "convert it" in (schema.remedy or "")


async def test_jobs_of_a_converted_schema_run(
    elixir: Connection, database_dsn: str, start: StartOban
) -> None:
    convert(elixir)
    assert upgrade(elixir)[-1] == LATEST
    elixir.commit()
    engine = create_async_engine(database_url(database_dsn))
    oban = await start(engine, queues={"mails": 2})
    with hear(oban, "ack_stop") as acks:
        async with AsyncSession(engine) as session, session.begin():
            session.add(Mail.new(tags=["fail"]))
        await acks.counted(3)
    async with AsyncSession(engine) as session:
        old, new, failed = [await session.get_one(Job, id) for id in (1, 2, 3)]
        assert old.state == new.state == JobState.COMPLETED
        assert [entry["error"] for entry in old.errors] == ["boom", "again"]
        assert (old.attempt, old.tags, new.meta, new.tags) == (3, [], {"k": 1}, ["a"])
        assert failed.state == JobState.RETRYABLE
        assert "once more" in failed.errors[0]["error"]
        assert await oban.retry_jobs(failed) == 1
    await oban.stop()
    await engine.dispose()
