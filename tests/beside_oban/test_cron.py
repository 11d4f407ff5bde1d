"""Jobs of cron have the same meta in both libraries, so that tools understand both."""

from datetime import UTC, datetime, timedelta
from typing import Any

import oban as oban_py
import pytest
from oban import _scheduler as their_scheduler
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Job, Worker
from oban_sqla.runtime.cron import Cron
from oban_sqla.runtime.database import Database
from tests.beside_oban.conftest import StartTheirs, Table
from tests.conftest import Tune

pytestmark = [pytest.mark.oban, pytest.mark.usefixtures("no_workers")]

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def own_entries(tune: Tune) -> None:
    tune(their_scheduler, _scheduled_entries=[])


def declare(entry: Any) -> None:
    """Declare the same entry of the same worker in both libraries."""

    @oban_py.worker(queue="shared", cron=entry)
    class Nightly:
        async def process(self, job: oban_py.Job) -> None: ...

    name = f"{Nightly.__module__}.{Nightly.__qualname__}"

    class Ours(Worker, name=name, queue="shared", cron=entry):
        async def process(self, job: Job) -> None: ...


@pytest.mark.parametrize(
    "entry",
    ["* * * * *", "@hourly", {"expr": "0 13 * * SUN", "timezone": "Europe/Berlin"}],
    ids=["expression", "nickname", "time zone"],
)
async def test_a_cron_job_has_the_meta_that_oban_py_gives(
    entry: Any, start_theirs: StartTheirs, engine: AsyncEngine, prefix: str, table: Table
) -> None:
    declare(entry)
    theirs = await start_theirs(queues={"other": 1})
    await theirs._scheduler._evaluate(NOON)
    cron = Cron(
        Database(engine, prefix),
        lambda name, data: None,
        is_leader=lambda: True,
        instance="Oban",
        timezone="UTC",
        wake_queues=lambda queues: None,
    )
    for cron.now in (NOON - timedelta(minutes=1), NOON):
        await cron.run_once()

    one, other = await table.query("SELECT * FROM {oban_jobs} ORDER BY id")
    assert other["meta"].pop("cron_tz") == ("UTC" if isinstance(entry, str) else "Europe/Berlin")
    assert one["meta"] == other["meta"]
    assert one["meta"]["cron_at"] == "2026-11-01T12:00:00+00:00"
    for column in ("worker", "queue", "args", "state", "priority", "max_attempts", "tags"):
        assert one[column] == other[column]
