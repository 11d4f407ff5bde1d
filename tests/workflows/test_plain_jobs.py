"""Jobs outside of workflows and chains cost no additional statement, and no longer one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, Oban, Worker
from oban_sqla.models import LeaderLease
from oban_sqla.runtime import following
from oban_sqla.runtime.direct_connection import DirectConnection
from tests.conftest import Tune
from tests.listening import hear
from tests.workflows.conftest import Sessions

JOBS = 30
NEVER: dict[str, Any] = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


class Plain(Worker, name="flows.plain"):
    async def process(self, job: Job) -> None: ...


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that are sent by the driver or past it."""
    sent: list[str] = []

    def note(sender: type, method: str) -> None:
        send = getattr(sender, method)

        async def noted(self: Any, query: Any, *args: Any, **options: Any) -> Any:
            sent.append(query.decode() if isinstance(query, bytes) else str(query))
            return await send(self, query, *args, **options)

        monkeypatch.setattr(sender, method, noted)

    note(psycopg.AsyncCursor, "execute")
    note(DirectConnection, "fetch")
    return sent


@pytest.fixture
async def leader(sessions: Sessions) -> None:
    """Let another node lead, so that our node only runs jobs."""
    now = datetime.now(UTC)
    lease = LeaderLease(
        name="Oban", node="x", elected_at=now, expires_at=now + timedelta(seconds=30)
    )
    async with sessions.begin() as session:
        session.add(lease)


async def drain(engine: AsyncEngine, sent: list[str]) -> set[str]:
    """The texts of the statements about jobs. Each write of outcomes is one statement."""
    async with Oban(engine, queues={"default": 10}, name="Oban", node="one", **NEVER) as oban:
        sent.clear()
        with hear(oban, "ack_stop") as acks:
            await oban.enqueue_many(Plain.new({"n": n}) for n in range(JOBS))
            await acks.counted(JOBS)
        # The look for cancelled jobs that run comes with the first look for orders, or not.
        texts = [text for text in sent if "oban_jobs" in text and "%(running)" not in text]
    assert sum("INSERT INTO" in text for text in texts) == 1
    assert sum("FROM acknowledged" in text for text in texts) == len(acks.events)
    return set(texts)


@pytest.mark.usefixtures("leader")
async def test_plain_jobs_are_no_steps(engine: AsyncEngine, sent: list[str], tune: Tune) -> None:
    with_workflows = await drain(engine, sent)
    assert following._followers
    tune(following, _followers=[])
    assert await drain(engine, sent) == with_workflows
    assert not any("workflow" in text or "chain" in text for text in with_workflows)


@pytest.mark.usefixtures("leader")
async def test_plain_jobs_write_nothing_into_the_tables_and_indexes_of_workflows(
    engine: AsyncEngine, prefix: str, sent: list[str]
) -> None:
    names = (
        *("oban_workflows", "oban_sqla_workflow_steps"),
        *("oban_sqla_jobs_workflow_index", "oban_sqla_jobs_chain_index"),
    )
    sizes = select(*(func.pg_relation_size(f"{prefix}.{name}") for name in names))
    async with engine.connect() as connection:
        before = (await connection.execute(sizes)).one()
        await drain(engine, sent)
        assert (await connection.execute(sizes)).one() == before
