"""The pruner: finished jobs, past their retention, in batches."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Worker
from oban_sqla.config import Config
from oban_sqla.runtime import pruner as pruner_module
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.pruner import INTERVAL, Pruner

Sessions = async_sessionmaker[AsyncSession]
FINISHED = {"completed": "completed_at", "cancelled": "cancelled_at", "discarded": "discarded_at"}


def pruner(engine: AsyncEngine, prefix: str, retention: Any = 60, leads: bool = True) -> Pruner:
    return Pruner(
        Database(engine, prefix),
        lambda name, data: None,
        is_leader=lambda: leads,
        retention=Config.check(retention=retention).retention,
    )


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


async def test_finished_jobs_that_are_old_go_and_no_unfinished_one(
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


async def test_each_state_and_worker_has_its_own_time(
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
        ("completed", "audit"),
        ("cancelled", "audit"),
    ]


async def test_it_goes_on_while_batches_are_full(
    engine: AsyncEngine, prefix: str, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruner_module, "BATCH", 4)
    await add(sessions, *(job("completed", 100) for _ in range(10)))
    service = pruner(engine, prefix)
    counts = []
    for delay in (0.0, 0.0, INTERVAL):
        assert await service.run_once() == delay
        counts.append(len(await left(sessions)))
    assert counts == [6, 2, 0]


async def test_a_job_that_somebody_holds_is_left_and_does_not_hold_up_the_others(
    engine: AsyncEngine, prefix: str, sessions: Sessions
) -> None:
    await add(sessions, job("completed", 100, "held"), job("completed", 100))
    async with sessions.begin() as session:
        await session.execute(select(Job.id).where(Job.worker == "held").with_for_update())
        await pruner(engine, prefix).run_once()
        assert await left(sessions) == [("completed", "held")]


async def test_only_the_leader_prunes(engine: AsyncEngine, prefix: str, sessions: Sessions) -> None:
    await add(sessions, job("completed", 100))
    assert await pruner(engine, prefix, leads=False).run_once() == math.inf
    assert len(await left(sessions)) == 1
