"""The outbox writes outcomes together. An outcome that can't be written delays no other one."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban, Record, job
from oban_sqla.config import Config
from oban_sqla.doctor.examination import examine
from oban_sqla.migrations import LATEST
from oban_sqla.runtime import outbox as outbox_module
from oban_sqla.runtime.database import Database
from tests.conftest import StartOban, Tune
from tests.listening import PATIENCE, hear
from tests.runtime.conftest import Refuse, Rows, of_rows, until
from tests.runtime.workers import Held, Quick
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]

S = JobState
DONE = (S.COMPLETED, 1)
NEVER = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


async def add(sessions: Sessions, *jobs: Job) -> list[int]:
    async with sessions.begin() as session:
        session.add_all(jobs)
    return [job.id for job in jobs]


@asynccontextmanager
async def row_locked(engine: AsyncEngine, id: int) -> AsyncIterator[None]:
    """Lock the row of a job, as a user's transaction might."""
    async with engine.connect() as connection:
        await connection.execute(select(Job.id).where(Job.id == id).with_for_update())
        yield
        await connection.rollback()


async def test_outcomes_of_all_queues_are_written_together(
    start: StartOban, sessions: Sessions, rows: Rows
) -> None:
    async with sessions.begin() as session:
        session.add_all([Held.new(queue=f"q{number % 4}") for number in range(8)])
    oban = await start(queues={f"q{number}": 5 for number in range(4)}, **NEVER)
    with hear(oban, "ack_stop") as acks:
        for _ in range(8):
            await Held.begun()
        Held.release()
        await acks.counted(8)
    assert sorted((ack.queue, ack.count) for ack in acks.events) == [
        (f"q{number}", 2) for number in range(4)
    ]
    assert len({ack.duration for ack in acks.events}) == 1
    assert await rows() == [DONE] * 8


class TestLockedRow:
    async def test_other_outcomes_are_written_and_jobs_are_claimed(
        self,
        start: StartOban,
        engine: AsyncEngine,
        prefix: str,
        sessions: Sessions,
        rows: Rows,
        caplog: pytest.LogCaptureFixture,
        tune: Tune,
    ) -> None:
        tune(outbox_module, NAMED_AFTER=0.0, LONGEST_DELAY=0.05)
        oban = await start(queues={"default": 3}, **NEVER)
        with hear(oban, "ack_stop") as acks, hear(oban, "outcome_delayed") as delays:
            locked, *_ = await add(sessions, *(Held.new() for _ in range(3)))
            for _ in range(3):
                await Held.begun()
            async with row_locked(engine, locked):
                Held.release()
                await acks.counted(2)
                await add(sessions, *(Quick.new() for _ in range(20)))
                await acks.counted(22)
                assert await rows() == [(S.EXECUTING, 1), *[DONE] * 22]
                (delay,) = await delays.wait()
            await acks.counted(23)
        assert await rows() == [DONE] * 23
        assert (delay.id, delay.reason) == (locked, "its row is locked by another transaction")
        assert len(delays.events) == 1
        assert f"the outcome of job {locked} can't be written" in caplog.text
        caplog.clear()

    async def test_the_outcome_of_a_job_that_another_node_claimed_is_dropped(
        self, start: StartOban, engine: AsyncEngine, prefix: str, sessions: Sessions, rows: Rows
    ) -> None:
        oban = await start(queues={"default": 3}, **NEVER)
        with hear(oban, "ack_stop") as acks:
            (id,) = await add(sessions, Held.new())
            await Held.begun()
            async with engine.connect() as other:
                await other.execute(
                    text(f"UPDATE \"{prefix}\".oban_jobs SET state = 'completed', attempt = 7")
                )
                Held.release()
                await until(lambda: services(oban).outbox._apart)
                await other.commit()
            await acks.until(lambda events: any(event.dropped for event in events))
        assert [ack.dropped for ack in acks.events if ack.dropped] == [(id,)]
        assert await rows() == [(S.COMPLETED, 7)]

    async def test_a_stop_does_not_wait_for_the_lock(
        self, engine: AsyncEngine, prefix: str, sessions: Sessions, rows: Rows
    ) -> None:
        oban = Oban(engine, queues={"default": 3}, **NEVER)
        await oban.start()
        locked, _ = await add(sessions, Held.new(), Held.new())
        await Held.begun()
        await Held.begun()
        async with row_locked(engine, locked):
            Held.release()
            async with asyncio.timeout(PATIENCE):
                await oban.stop()
        # The rescue will find the job.
        assert await rows() == [(S.EXECUTING, 1), DONE]


class TestRefusal:
    @pytest.mark.parametrize("count", [1, 2, 30])
    async def test_the_refused_outcome_fails_and_the_others_are_written(
        self,
        start: StartOban,
        refuse: Refuse,
        sessions: Sessions,
        rows: Rows,
        caplog: pytest.LogCaptureFixture,
        count: int,
    ) -> None:
        await refuse(of_rows("new.state = 'completed' AND new.args ? 'odd'"))
        oban = await start(queues={"default": 100}, **NEVER)
        with hear(oban, "ack_stop") as acks, hear(oban, "outcome_refused") as refusals:
            jobs = [Held.new({"odd": True} if n == count // 2 else {}) for n in range(count)]
            ids = await add(sessions, *jobs)
            for _ in ids:
                await Held.begun()
            Held.release()
            await acks.counted(count)
        expected = [DONE] * count
        expected[count // 2] = (S.RETRYABLE, 1)
        assert await rows() == expected
        assert [refused.id for refused in refusals.events] == [ids[count // 2]]
        async with sessions() as session:
            (error,) = await session.scalar(select(Job.errors).where(Job.state == S.RETRYABLE))
        assert error["error"] == (
            "the outcome could not be stored, so the attempt failed: not this one"
        )
        assert "since the database refused its outcome" in caplog.text
        caplog.clear()

    async def test_the_last_attempt_is_discarded(
        self,
        start: StartOban,
        refuse: Refuse,
        sessions: Sessions,
        rows: Rows,
        expect_errors: None,
    ) -> None:
        await refuse(of_rows("new.state = 'completed'"))
        oban = await start(queues={"default": 5}, **NEVER)
        with hear(oban, "ack_stop") as acks:
            await add(sessions, Quick.new(max_attempts=1))
            await acks.counted(1)
        assert await rows() == [(S.DISCARDED, 1)]

    async def test_an_outcome_whose_failure_is_refused_too_is_set_apart_and_reported_once(
        self,
        start: StartOban,
        refuse: Refuse,
        engine: AsyncEngine,
        prefix: str,
        sessions: Sessions,
        rows: Rows,
        expect_errors: None,
        tune: Tune,
    ) -> None:
        tune(outbox_module, LONGEST_DELAY=0.05)
        await refuse(of_rows("old.state = 'executing' AND new.args ? 'odd'"))
        oban = await start(queues={"default": 5}, **NEVER)
        with hear(oban, "ack_stop") as acks, hear(oban, "outcome_delayed") as delays:
            (odd,) = await add(sessions, Quick.new({"odd": True}))
            await delays.wait()
            await add(sessions, *(Quick.new() for _ in range(30)))
            await acks.counted(30)
            assert await rows() == [(S.EXECUTING, 1), *[DONE] * 30]
            async with engine.begin() as connection:
                await connection.execute(text(f'DROP TRIGGER refusal ON "{prefix}".oban_jobs'))
            await acks.counted(31)
        assert [delay.id for delay in delays.events] == [odd]
        assert "the database refuses it: not this one" in delays.events[0].reason
        assert await rows() == [(S.RETRYABLE, 1), *[DONE] * 30]

    async def test_the_doctor_names_the_refused_outcome(
        self,
        start: StartOban,
        refuse: Refuse,
        engine: AsyncEngine,
        prefix: str,
        sessions: Sessions,
        expect_errors: None,
    ) -> None:
        await refuse(of_rows("old.state = 'executing'"))
        oban = await start(queues={"default": 5}, **NEVER)
        with hear(oban, "outcome_delayed") as delays:
            (odd,) = await add(sessions, Quick.new())
            await delays.wait()
        await services(oban).queues.report()
        findings = examine(Database(engine, prefix), Config.check(), latest=LATEST)
        found = [finding async for finding in findings if finding.check == "outcomes"]
        assert [finding.level for finding in found] == ["problem"]
        assert f"can't write the outcome of job {odd} of queue default" in found[0].text

    async def test_a_missing_table_fails_no_attempt(
        self,
        quick: None,
        start: StartOban,
        prefix: str,
        sessions: Sessions,
        rows: Rows,
        expect_errors: None,
        tune: Tune,
    ) -> None:
        """The table is missing, as during a migration that renames it."""
        tune(outbox_module, LONGEST_DELAY=0.05)
        oban = await start(queues={"default": 5}, **NEVER)
        with hear(oban, "ack_stop") as acks, hear(oban, "outcome_delayed") as delays:
            await add(sessions, Held.new())
            await Held.begun()
            async with sessions.begin() as session:
                await session.execute(text(f'ALTER TABLE "{prefix}".oban_jobs RENAME TO away'))
            Held.release()
            await delays.wait()
            async with sessions.begin() as session:
                await session.execute(text(f'ALTER TABLE "{prefix}".away RENAME TO oban_jobs'))
            await acks.counted(1)
        assert await rows() == [DONE]


async def test_a_value_that_is_no_json_fails_its_attempt_alone(
    start: StartOban, sessions: Sessions, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    @job(name="records_what_can_not_be_encoded")
    async def record() -> Record:
        found = Record([])
        for _ in range(100_000):
            object.__setattr__(found, "value", [found.value])
        return found

    oban = await start(queues={"default": 5}, **NEVER)
    with hear(oban, "ack_stop") as acks:
        await add(sessions, record.new(), Quick.new())
        await acks.counted(2)
    assert await rows() == [(S.RETRYABLE, 1), DONE]


async def test_a_statement_that_takes_too_long_is_sent_in_halves(
    start: StartOban,
    refuse: Refuse,
    sessions: Sessions,
    rows: Rows,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The role has a statement_timeout."""
    oban = await start(queues={"default": 9}, **NEVER)
    with hear(oban, "ack_stop") as acks:
        await add(sessions, *(Held.new() for _ in range(9)))
        for _ in range(9):
            await Held.begun()
        await refuse(
            "AFTER UPDATE ON oban_jobs REFERENCING NEW TABLE AS updated FOR EACH STATEMENT",
            "IF (SELECT count(*) > 2 FROM updated) THEN"
            " RAISE EXCEPTION ''too long'' USING ERRCODE = ''57014''; END IF;",
        )
        Held.release()
        await acks.counted(9)
    assert await rows() == [DONE] * 9
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_full_outbox_stops_claims(
    start: StartOban,
    engine: AsyncEngine,
    sessions: Sessions,
    rows: Rows,
    tune: Tune,
) -> None:
    """Otherwise outcomes would fill the memory while the database does not accept them."""
    tune(outbox_module, FULL=1, LONGEST_DELAY=0.05)
    oban = await start(queues={"default": 5}, **NEVER)
    with hear(oban, "ack_stop") as acks, hear(oban, "job_start") as starts:
        (locked,) = await add(sessions, Held.new())
        await Held.begun()
        async with row_locked(engine, locked):
            Held.release()
            await until(lambda: len(services(oban).outbox) == 1)
            await add(sessions, Quick.new())
            await services(oban).producers["default"].run_once()
            assert len(starts.events) == 1
        await acks.counted(2)
    assert await rows() == [DONE] * 2
