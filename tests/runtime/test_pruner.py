"""The pruner deletes finished jobs past their retention, in batches."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban, Worker
from oban_sqla.config import Config
from oban_sqla.events import PruneRefused
from oban_sqla.runtime import database as database_module
from oban_sqla.runtime import pruner as pruner_module
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.pruner import INTERVAL, Pruner
from oban_sqla.runtime.service import Emit
from tests.conftest import StartOban, Tune
from tests.listening import hear

Sessions = async_sessionmaker[AsyncSession]
FINISHED = {"completed": "completed_at", "cancelled": "cancelled_at", "discarded": "discarded_at"}


Execute = Callable[..., Awaitable[None]]


def pruner(
    engine: AsyncEngine,
    prefix: str,
    retention: Any = 60,
    leads: bool = True,
    emit: Emit = lambda name, data: None,
) -> Pruner:
    return Pruner(
        Database(engine, prefix),
        emit,
        is_leader=lambda: leads,
        retention=Config.check(retention=retention).retention,
    )


def collect(name: str, found: list[Any]) -> Emit:
    return lambda event, data: found.append(data) if event == name else None


def job(state: str, age: float, worker: str = "w") -> Job:
    made = Job(worker, state=JobState(state))
    long_ago = datetime.now(UTC) - timedelta(seconds=age)
    made.inserted_at = long_ago
    if state in FINISHED:
        setattr(made, FINISHED[state], long_ago)
    return made


async def add(sessions: Sessions, *jobs: Job) -> None:
    async with sessions.begin() as session:
        session.add_all(jobs)


async def left(sessions: Sessions) -> list[tuple[str, str]]:
    async with sessions() as session:
        rows = await session.execute(select(Job.state, Job.worker).order_by(Job.id))
        return [(state.value, worker) for state, worker in rows]


async def test_only_old_finished_jobs_are_deleted(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    await add(sessions, *(job(state, 100) for state in JobState))
    await add(sessions, *(job(state, 10) for state in FINISHED))
    assert await pruner(engine, prefix).run_once() == INTERVAL
    kept = [(state.value, "w") for state in JobState if state.value not in FINISHED]
    assert await left(sessions) == kept + [(state, "w") for state in FINISHED]


async def test_a_worker_may_be_named_by_its_class() -> None:
    class Audit(Worker, name="audit"):
        async def process(self, job: Job) -> None: ...

    retention = Config.check(retention={"workers": {Audit: 60}}).retention
    assert retention == Config.check(retention={"workers": {"audit": 60}}).retention
    assert retention.workers["audit"]["completed"] == 60


async def test_each_state_and_worker_has_its_own_retention(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    retention = {
        "completed": 5,
        "cancelled": None,
        "workers": {"short": 5, "audit": {"completed": None, "discarded": 50}},
    }
    for worker in ("w", "short", "audit"):
        await add(sessions, *(job(state, 100, worker) for state in FINISHED))
    await pruner(engine, prefix, retention).run_once()
    assert await left(sessions) == [
        ("cancelled", "w"),
        ("discarded", "w"),
        # If a state is kept for ever, the seconds of a worker do not apply to it.
        ("cancelled", "short"),
        ("completed", "audit"),
        ("cancelled", "audit"),
    ]


async def test_a_pass_goes_on_while_batches_are_full(
    engine: AsyncEngine, prefix: str, sessions: Sessions, tune: Tune
) -> None:
    tune(pruner_module, BATCH=4)
    await add(sessions, *(job("completed", 100) for _ in range(10)))
    service = pruner(engine, prefix)
    counts = []
    for delay in (0.0, 0.0, INTERVAL):
        assert await service.run_once() == delay
        counts.append(len(await left(sessions)))
    assert counts == [6, 2, 0]


async def test_a_locked_job_is_kept_and_delays_no_other(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    await add(sessions, job("completed", 100, "held"), job("completed", 100))
    async with sessions.begin() as session:
        await session.execute(select(Job.id).where(Job.worker == "held").with_for_update())
        await pruner(engine, prefix).run_once()
        assert await left(sessions) == [("completed", "held")]


async def test_a_locked_job_is_deleted_by_the_next_pass(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    await add(sessions, job("completed", 100, "held"), job("completed", 100, "again"))
    service = pruner(engine, prefix)
    async with sessions.begin() as session:
        _, again = await session.scalars(select(Job).order_by(Job.id).with_for_update())
        await service.run_once()
        # Its retention begins again.
        again.completed_at = datetime.now(UTC)
    assert await left(sessions) == [("completed", "held"), ("completed", "again")]
    await service.run_once()
    assert await left(sessions) == [("completed", "again")]


async def test_many_locked_jobs_are_not_remembered_but_found_again(
    engine: AsyncEngine, prefix: str, sessions: Sessions, tune: Tune
) -> None:
    tune(pruner_module, MOST_LOCKED=2)
    await add(sessions, *(job("completed", 100) for _ in range(3)))
    service = pruner(engine, prefix)
    async with sessions.begin() as session:
        await session.execute(select(Job.id).with_for_update())
        await service.run_once()
    await service.run_once()
    assert await left(sessions) == []


@pytest.fixture
def read(engine: AsyncEngine) -> Iterator[list[tuple[str, int]]]:
    """For each sent statement: the workers of its rule, and the id behind which it began."""
    read: list[tuple[str, int]] = []

    def note(conn: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if "scan" in parameters:
            read.append((",".join(parameters["workers"]), parameters["after_id"]))

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    yield read
    event.remove(engine.sync_engine, "before_cursor_execute", note)


async def test_a_rule_reads_the_jobs_that_it_keeps_once(
    engine: AsyncEngine,
    prefix: str,
    sessions: Sessions,
    read: list[tuple[str, int]],
    tune: Tune,
) -> None:
    """There may be millions of them, and the rule may be for a worker without jobs."""
    tune(pruner_module, SCAN=4)
    await add(sessions, *(job("completed", 200 - n) for n in range(10)))
    retention = {"completed": 3600, "cancelled": None, "discarded": None}
    service = pruner(engine, prefix, {**retention, "workers": {"absent": {"completed": 5}}})
    delays = [await service.run_once() for _ in range(3)]
    assert delays == [0.0, 0.0, INTERVAL]
    assert [id for worker, id in read if worker == "absent"][-3:] == [0, 4, 8]
    await add(sessions, job("completed", 50, "absent"))
    assert await service.run_once() == INTERVAL
    assert len(await left(sessions)) == 10
    # It began behind the jobs that it had read.
    assert (await left(sessions)).count(("completed", "absent")) == 0
    rule = service._rules[-1]
    assert rule.workers == ["absent"]
    assert rule.after[0] > datetime.now(UTC) - timedelta(seconds=5 + 60 + 20)


async def test_a_rule_without_old_jobs_deletes_nothing(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    await add(sessions, job("completed", 30), job("discarded", 90), job("executing", 90))
    sent: list[str] = []

    def note(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "oban_jobs" in statement:
            sent.append(statement.split()[0])

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    await pruner(engine, prefix).run_once()
    event.remove(engine.sync_engine, "before_cursor_execute", note)
    # The rules of completed, cancelled and discarded jobs look; the last one deletes.
    assert sorted(sent) == ["SELECT", "SELECT", "SELECT", "WITH"]
    assert await left(sessions) == [("completed", "w"), ("executing", "w")]


async def test_only_full_rules_make_another_pass_at_once(
    engine: AsyncEngine,
    prefix: str,
    sessions: Sessions,
    read: list[tuple[str, int]],
    tune: Tune,
) -> None:
    tune(pruner_module, BATCH=2)
    await add(sessions, *(job("completed", 100) for _ in range(9)))
    service = pruner(engine, prefix, {"completed": 60, "workers": {"a": 60, "b": 60}})
    assert await service.run_once() == 0.0
    first = len(read)
    assert await service.run_once() == 0.0
    assert len(read) == first + 1
    # The other rules have their turns nevertheless.
    for rule in service._rules:
        rule.due_at = 0.0
    assert await service.run_once() == 0.0
    assert len(read) == first + 1 + first


async def test_an_old_job_behind_the_position_of_a_rule_is_found_later(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    await add(sessions, job("completed", 3600))
    service = pruner(engine, prefix)
    await service.run_once()
    await add(sessions, job("completed", 3600))
    await service.run_once()
    assert len(await left(sessions)) == 1
    for rule in service._rules:
        rule.retry_at = 0.0
    await service.run_once()
    await service.run_once()
    assert await left(sessions) == []


async def test_only_the_leader_prunes(engine: AsyncEngine, prefix: str, sessions: Sessions) -> None:
    await add(sessions, job("completed", 100))
    assert await pruner(engine, prefix, leads=False).run_once() == math.inf
    assert len(await left(sessions)) == 1


@pytest.fixture
async def execute(engine: AsyncEngine, prefix: str) -> AsyncIterator[Execute]:
    """Run SQL with `{prefix}` in it. The table `receipts` and the function `guard` are dropped at
    the end.
    """

    async def execute(*statements: str) -> None:
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement.format(prefix=f'"{prefix}"')))

    yield execute
    await execute(
        "DROP TABLE IF EXISTS {prefix}.receipts",
        "DROP FUNCTION IF EXISTS {prefix}.guard CASCADE",
    )


REFER = (
    "CREATE TABLE {prefix}.receipts (job_id bigint REFERENCES {prefix}.oban_jobs)",
    "INSERT INTO {prefix}.receipts SELECT id FROM {prefix}.oban_jobs WHERE worker = 'kept'",
)
RAISE = (
    "CREATE FUNCTION {prefix}.guard() RETURNS trigger LANGUAGE plpgsql AS"
    " $$BEGIN IF OLD.worker = 'kept' THEN RAISE 'never'; END IF; RETURN OLD; END$$",
    "CREATE TRIGGER guard BEFORE DELETE ON {prefix}.oban_jobs"
    " FOR EACH ROW EXECUTE FUNCTION {prefix}.guard()",
)


@pytest.mark.parametrize("obstacle", [REFER, RAISE], ids=["foreign key", "trigger"])
async def test_jobs_that_can_not_be_deleted_delay_no_others(
    obstacle: tuple[str, ...],
    engine: AsyncEngine,
    prefix: str,
    sessions: Sessions,
    execute: Execute,
    tune: Tune,
) -> None:
    tune(pruner_module, BATCH=8)
    for n in range(20):
        await add(sessions, job("completed", 200 - n, "kept" if n % 6 == 0 else "w"))
    await add(sessions, job("discarded", 100), job("cancelled", 100))
    await execute(*obstacle)
    refused: list[PruneRefused] = []
    service = pruner(engine, prefix, emit=collect("prune_refused", refused))
    for _ in range(4):
        await service.run_once()
    assert await left(sessions) == [("completed", "kept")] * 4
    # Each job is named once, although it is tried again after an hour.
    assert sorted(id for event in refused for id in event.ids) == [1, 7, 13, 19]
    for rule in service._rules:
        rule.retry_at = 0.0
    await service.run_once()
    await service.run_once()
    assert sum(len(event.ids) for event in refused) == 4


async def test_a_refused_job_is_deleted_once_no_row_refers_to_it(
    engine: AsyncEngine,
    prefix: str,
    sessions: Sessions,
    execute: Execute,
    tune: Tune,
) -> None:
    tune(pruner_module, RETRY_AFTER=0.0)
    await add(sessions, job("completed", 100, "kept"), job("completed", 100))
    await execute(*REFER)
    service = pruner(engine, prefix)
    await service.run_once()
    assert await left(sessions) == [("completed", "kept")]
    await execute("DELETE FROM {prefix}.receipts")
    await service.run_once()
    assert await left(sessions) == []


async def test_many_refused_jobs_are_skipped_in_batches(
    engine: AsyncEngine,
    prefix: str,
    sessions: Sessions,
    execute: Execute,
    tune: Tune,
) -> None:
    tune(pruner_module, MOST_FAILURES=10)
    await add(sessions, *(job("completed", 200 - n, "kept") for n in range(30)))
    await add(sessions, job("completed", 100))
    await execute(*REFER)
    service = pruner(engine, prefix)
    passes = 1
    while await service.run_once() == 0.0:
        passes += 1
    assert 3 < passes < 20
    assert await left(sessions) == [("completed", "kept")] * 30


async def test_a_locked_row_that_refers_to_a_job_delays_no_others(
    engine: AsyncEngine,
    prefix: str,
    sessions: Sessions,
    execute: Execute,
    tune: Tune,
) -> None:
    tune(pruner_module, LIMITS={"lock_timeout": "20ms"})
    await add(sessions, *(job("completed", 100, worker) for worker in ("w", "kept", "w")))
    await execute(*REFER)
    async with sessions.begin() as session:
        await session.execute(text(f'SELECT * FROM "{prefix}".receipts FOR UPDATE'))
        await pruner(engine, prefix).run_once()
        assert await left(sessions) == [("completed", "kept")]


async def test_a_slow_deletion_delays_no_others(
    engine: AsyncEngine,
    prefix: str,
    sessions: Sessions,
    execute: Execute,
    tune: Tune,
) -> None:
    tune(database_module, ANSWER_TIMEOUT=0.3)
    tune(pruner_module, LIMITS={"statement_timeout": "200ms"})
    await add(sessions, *(job("completed", 100, worker) for worker in ("w", "kept", "w")))
    await execute(RAISE[0].replace("RAISE 'never'", "PERFORM pg_sleep(5)"), RAISE[1])
    await pruner(engine, prefix).run_once()
    assert await left(sessions) == [("completed", "kept")]


async def test_a_rule_that_fails_stops_no_other(
    engine: AsyncEngine, prefix: str, sessions: Sessions, execute: Execute
) -> None:
    await add(sessions, job("completed", 100), job("discarded", 100))
    await execute(
        "CREATE FUNCTION {prefix}.guard() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN IF OLD.state = 'completed' THEN RAISE 'full' USING ERRCODE = '53100'; END IF;"
        " RETURN OLD; END$$",
        RAISE[1],
    )
    with pytest.raises(DBAPIError, match="full"):
        await pruner(engine, prefix).run_once()
    assert await left(sessions) == [("completed", "w")]


async def test_the_log_names_a_job_that_can_not_be_deleted_once(
    sessions: Sessions,
    execute: Execute,
    start: StartOban,
    caplog: pytest.LogCaptureFixture,
    tune: Tune,
) -> None:
    tune(Pruner, begins_in=0.0)
    await add(sessions, job("completed", 100, "kept"))
    await execute(*REFER)
    with hear(Oban, "prune_stop") as stops:
        await start(queues={"default": 1}, retention=60)
        await stops.wait()
    (record,) = [found for found in caplog.records if "retention" in found.message]
    assert record.levelname == "WARNING"
    assert "can't delete completed jobs that are past their retention: 1: " in record.message
    assert "receipts_job_id_fkey" in record.message
