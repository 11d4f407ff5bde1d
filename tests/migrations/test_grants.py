"""Least privileges, with real roles: the allowed calls, and the errors of the others."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, delete, func, insert, select, text, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from oban_sqla import Job, Oban, PrivilegeMissingError, Unique, Worker
from oban_sqla.config import Config
from oban_sqla.doctor.examination import examine
from oban_sqla.dsn import database_url
from oban_sqla.migrations import LATEST, grant, upgrade
from oban_sqla.monitor.status import status
from oban_sqla.runtime.database import Database
from tests.conftest import StartOban
from tests.listening import hear

REPLACING = Unique(replace=["args"])


class Mail(Worker, name="grants.mail", queue="mails"):
    async def process(self, job: Job) -> None: ...


@pytest.fixture(params=["jobs", None])
def prefix(request: pytest.FixtureRequest, engine: Engine) -> str | None:
    prefix: str | None = request.param
    with engine.begin() as connection:
        upgrade(connection, prefix=prefix)
    return prefix


@pytest.fixture
def role(engine: Engine, prefix: str | None) -> Iterator[str]:
    """A role without any privilege on the tables."""
    role = f'web "{uuid4().hex[:8]}"'
    quoted = engine.dialect.identifier_preparer.quote(role)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {quoted} LOGIN"))
    yield role
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {quoted}"))
        connection.execute(text(f"DROP ROLE {quoted}"))


@pytest.fixture
async def as_role(database_dsn: str, prefix: str | None, role: str) -> AsyncIterator[AsyncEngine]:
    """An engine that connects as the role."""
    engine = create_async_engine(
        database_url(database_dsn).set(username=role),
        execution_options={"schema_translate_map": {None: prefix}},
    )
    yield engine
    await engine.dispose()


def allow(engine: Engine, prefix: str | None, **roles: str) -> None:
    for _ in range(2):  # granting twice changes nothing
        with engine.begin() as connection:
            grant(connection, **roles, prefix=prefix)


async def test_a_role_with_the_enqueue_grant_enqueues(
    engine: Engine, as_role: AsyncEngine, role: str, prefix: str | None
) -> None:
    allow(engine, prefix, enqueue=role)
    oban = Oban(as_role, prefix=prefix)
    async with AsyncSession(as_role) as session, session.begin():
        session.add(Mail.new({"n": 1}))
        await Mail.enqueue({"n": 2}, conn=session, schedule_in=60)
        await session.execute(insert(Job), [{"worker": "grants.mail", "queue": "mails"}])
    assert len(await oban.enqueue_many(Mail.new({"n": n}) for n in range(3, 5))) == 2
    async with as_role.begin() as connection:
        await Mail.enqueue({"n": 5}, conn=connection)
    for conflict in (False, True):
        job = await oban.enqueue(Mail.new({"n": 6}, unique=True))
        assert job.conflict is conflict
    async with AsyncSession(as_role) as session, session.begin():
        session.add(again := Mail.new({"n": 6}, unique=True))
        await session.flush()
        assert again.id == job.id
        assert await session.scalar(select(func.count()).select_from(Job)) == 7


@pytest.mark.parametrize("statement", [update(Job).values(args={}), delete(Job)])
async def test_a_role_with_the_enqueue_grant_may_not_change_jobs(
    engine: Engine, as_role: AsyncEngine, role: str, prefix: str | None, statement: Any
) -> None:
    allow(engine, prefix, enqueue=role)
    async with as_role.connect() as connection:
        with pytest.raises(ProgrammingError, match="permission denied for table oban_jobs"):
            await connection.execute(statement)


async def test_replace_needs_the_privilege_to_update(
    engine: Engine, as_role: AsyncEngine, role: str, prefix: str | None
) -> None:
    allow(engine, prefix, enqueue=role)
    oban = Oban(as_role, prefix=prefix)
    await oban.enqueue(Mail.new({"n": 1}, unique=REPLACING))
    with pytest.raises(ProgrammingError) as caught:
        await oban.enqueue(Mail.new({"n": 1}, unique=REPLACING))
    assert "or replaces unique jobs, needs op.grant_oban(run=...)" in caught.value.__notes__[0]


async def test_a_role_with_the_run_grant_runs_jobs(
    engine: Engine, as_role: AsyncEngine, role: str, prefix: str | None, start: StartOban
) -> None:
    allow(engine, prefix, run=role)
    oban = await start(as_role, prefix=prefix, queues={"mails": 2})
    with hear(oban, "ack_stop") as acks:
        job = await oban.enqueue(Mail.new(unique=REPLACING))
        await acks.wait()
    await oban.pause_queue("mails")
    assert await oban.retry_jobs(job) == 1
    assert await oban.delete_jobs(job) == 1


async def test_a_role_with_the_read_grant_sees_the_status(
    engine: Engine, as_role: AsyncEngine, role: str, prefix: str | None
) -> None:
    allow(engine, prefix, read=role)
    database = Database(as_role, prefix)
    assert (await status(database)).nodes == ()
    found = [finding async for finding in examine(database, Config.check(), latest=LATEST)]
    assert not [one for one in found if "the check failed" in one.text]
    async with as_role.connect() as connection:
        with pytest.raises(ProgrammingError, match="permission denied for table oban_jobs"):
            await connection.execute(insert(Job).values(worker="w"))


async def test_a_node_names_a_missing_privilege(
    engine: Engine, as_role: AsyncEngine, role: str, prefix: str | None
) -> None:
    allow(engine, prefix, run=role)
    quoted = engine.dialect.identifier_preparer.quote(role)
    where = f"{prefix}.oban_producers" if prefix else "oban_producers"
    with engine.begin() as connection:
        connection.execute(text(f"REVOKE INSERT, DELETE ON {where} FROM {quoted}"))
    async with AsyncExitStack() as stack:
        with pytest.raises(PrivilegeMissingError) as caught:
            await stack.enter_async_context(Oban(as_role, prefix=prefix, queues={"mails": 1}))
    said = str(caught.value)
    assert f"the role {role!r} lacks privileges in schema {prefix or 'public'!r}" in said
    assert "INSERT, DELETE on oban_producers: grant them with `oban-sqla schema grant" in said


async def test_a_node_without_a_grant_does_not_start(
    as_role: AsyncEngine, role: str, prefix: str | None
) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(PrivilegeMissingError, match="INSERT, UPDATE, DELETE on oban_jobs;"):
            await stack.enter_async_context(Oban(as_role, prefix=prefix, queues={"mails": 1}))


async def test_a_node_without_usage_of_its_schema_finds_no_tables(
    engine: Engine, as_role: AsyncEngine, role: str, prefix: str | None
) -> None:
    """The server finds nothing in the schema, as if the tables were missing."""
    with engine.begin() as connection:
        upgrade(connection, prefix="hidden")
        if prefix is None:
            connection.execute(text("DROP TABLE oban_jobs"))
    plain = as_role.execution_options(schema_translate_map=None)
    message = r"lacks privileges in database .*, USAGE of the schema 'hidden'"
    async with AsyncExitStack() as stack:
        with pytest.raises(PrivilegeMissingError, match=message):
            await stack.enter_async_context(Oban(plain, queues={"mails": 1}))


async def test_an_enqueue_without_a_grant_names_the_remedy(
    as_role: AsyncEngine, prefix: str | None
) -> None:
    async with AsyncSession(as_role) as session:
        session.add(Mail.new())
        with pytest.raises(ProgrammingError, match="permission denied") as caught:
            await session.flush()
    assert "op.grant_oban(enqueue=...)" in caught.value.__notes__[0]
