"""Each library can read, and continue, what the other one writes about a job."""

from datetime import datetime, timedelta

import oban as oban_py
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState
from tests.beside_oban.conftest import StartTheirs, Table
from tests.beside_oban.workers import OURS, THEIRS, Ours, Script, Theirs
from tests.conftest import StartOban
from tests.runtime.conftest import until

pytestmark = pytest.mark.oban

Sessions = async_sessionmaker[AsyncSession]


async def ours_reads(sessions: Sessions, id: int | None) -> Job:
    async with sessions() as session:
        return (await session.scalars(select(Job).where(Job.id == id))).one()


class TestErrors:
    async def test_we_read_an_error_of_oban_py(
        self, start_theirs: StartTheirs, client: oban_py.Oban, sessions: Sessions, table: Table
    ) -> None:
        await start_theirs()
        failed = await client.enqueue(Theirs.new({"do": "fail"}, max_attempts=1))
        await table.until({"discarded": 1})
        job = await ours_reads(sessions, failed.id)
        (entry,) = job.errors
        assert entry.keys() == {"attempt", "at", "error"}
        assert entry["attempt"] == 1
        assert datetime.fromisoformat(entry["at"]).utcoffset() == timedelta(0)
        assert entry["error"].endswith("ValueError: no luck: theirs\n")
        assert job.state is JobState.DISCARDED
        assert job.discarded_at is not None
        assert job.attempted_by[0] == "theirs"

    async def test_oban_py_reads_our_error(
        self,
        start: StartOban,
        client: oban_py.Oban,
        table: Table,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        ours = await start(queues={"shared": 1}, node="ours")
        failed = await ours.enqueue(Ours.new({"do": "fail"}, max_attempts=1))
        await table.until({"discarded": 1})
        job = await client.get_job(failed.id)
        assert job is not None
        (entry,) = job.errors
        assert entry.keys() == {"attempt", "at", "error"}
        assert entry["attempt"] == 1
        assert datetime.fromisoformat(entry["at"]).utcoffset() == timedelta(0)
        assert entry["error"].endswith("ValueError: no luck: ours\n")
        assert job.state == "discarded"
        assert job.attempted_by[0] == "ours"
        caplog.clear()  # a discarded job is an error


async def alternately(
    start_theirs: StartTheirs, start: StartOban, table: Table, states: list[dict[str, int]]
) -> None:
    """Let oban-py make the first attempt, our node the second, and so on, an hour apart."""
    for n, state in enumerate(states):
        if n % 2:
            node = await start(queues={"shared": 1}, node=OURS)
        else:
            node = await start_theirs(node=THEIRS)
        await until(lambda n=n: len(Script.ran) > n)
        await table.until(state)
        await node.stop()
        await table.an_hour_later()


async def test_each_side_retries_jobs_that_failed_on_the_other(
    start_theirs: StartTheirs, start: StartOban, table: Table, sessions: Sessions
) -> None:
    async with sessions.begin() as session:
        session.add(job := Ours.new({"do": "fail", "times": 3}))
    await alternately(start_theirs, start, table, [{"retryable": 1}] * 3 + [{"completed": 1}])
    row = await table.job(job.id)
    assert [entry["attempt"] for entry in row["errors"]] == [1, 2, 3]
    assert [entry["error"].split()[-1] for entry in row["errors"]] == [THEIRS, OURS, THEIRS]
    assert row["attempt"] == 4
    assert row["attempted_by"][0] == OURS


async def test_snoozes_of_both_sides_are_counted_together(
    start_theirs: StartTheirs, start: StartOban, table: Table, sessions: Sessions
) -> None:
    async with sessions.begin() as session:
        session.add(job := Ours.new({"do": "snooze"}, meta={"kept": True}))
    await alternately(
        start_theirs, start, table, [{"scheduled": 1}, {"scheduled": 1}, {"completed": 1}]
    )
    row = await table.job(job.id)
    assert row["meta"] == {"kept": True, "snoozed": 2}
    assert row["attempt"] == 1
    assert Script.ran == [(THEIRS, job.id), (OURS, job.id), (THEIRS, job.id)]


@pytest.mark.parametrize("side", [THEIRS, OURS])
async def test_a_cancelled_job_keeps_the_reason(
    side: str,
    start_theirs: StartTheirs,
    start: StartOban,
    client: oban_py.Oban,
    sessions: Sessions,
    table: Table,
) -> None:
    if side == OURS:
        await start(queues={"shared": 1})
    else:
        await start_theirs()
    async with sessions.begin() as session:
        session.add(job := Ours.new({"do": "cancel"}))
    await table.until({"cancelled": 1})
    theirs, ours = await client.get_job(job.id), await ours_reads(sessions, job.id)
    assert theirs is not None
    assert theirs.errors == ours.errors
    assert ours.errors[0]["error"].strip("'") == f"not wanted: {side}"
    assert theirs.cancelled_at == ours.cancelled_at is not None


async def test_values_recorded_by_oban_py_are_not_mistaken_for_ours(
    start_theirs: StartTheirs, sessions: Sessions, table: Table
) -> None:
    async with sessions.begin() as session:
        session.add(job := Ours.new({"do": "record"}))
    await start_theirs()
    await table.until({"completed": 1})
    with pytest.raises(ValueError, match="recorded by another Oban, as an Erlang term"):
        _ = (await ours_reads(sessions, job.id)).recorded


async def test_neither_side_moves_a_suspended_job(
    start_theirs: StartTheirs,
    start: StartOban,
    client: oban_py.Oban,
    sessions: Sessions,
    table: Table,
) -> None:
    """Only Oban Pro suspends jobs: later steps of a workflow, which it releases itself."""
    async with sessions.begin() as session:
        session.add(Job(Ours.new().worker, queue="shared", state=JobState.SUSPENDED))
    suspended = await client.enqueue(Theirs.new(state="suspended"))
    await start_theirs()
    await start(queues={"shared": 1}, fallback_interval=0.05)
    await client.enqueue(Theirs.new())
    await table.until({"completed": 1, "suspended": 2})
    assert len(Script.ran) == 1
    await client.retry_job(suspended)
    await table.until({"completed": 2, "suspended": 1})
