"""Many processes, and what becomes of the jobs of one that dies or is told to stop."""

import signal

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job
from tests.failures.conftest import Runs, Spawn, ended, enqueue, notes, says

pytestmark = pytest.mark.torture

Sessions = async_sessionmaker[AsyncSession]


async def test_each_of_10000_jobs_runs_once_on_four_nodes(
    runs: Runs, spawn: Spawn, sessions: Sessions
) -> None:
    nodes = [await spawn() for _ in range(4)]
    for _ in range(10):
        await enqueue(sessions, notes(1_000))
    await runs.all_completed(10_000)
    assert set(runs.per_job().values()) == {1}
    assert len(runs.per_job()) == 10_000
    assert runs.attempts("completed") == {1}
    for node in nodes:
        node.send_signal(signal.SIGTERM)
        assert await ended(node) == 0
    assert runs.producers() == {}


async def test_a_killed_process_loses_nothing(runs: Runs, spawn: Spawn, sessions: Sessions) -> None:
    """Its jobs stay executing, under the name of a producer that is not alive: for the rescue."""
    killed = await spawn(limit=5)
    dead = set(runs.producers())
    await enqueue(sessions, notes(500, 0.01))
    await runs.until(lambda: runs.count() >= 50)
    other = await spawn(limit=5)
    await runs.until(lambda: runs.count() >= 150)
    killed.kill()
    await ended(killed)

    def only_its_own_are_left() -> bool:
        return set(runs.states()) <= {"completed", "executing"} and runs.claimed_by() <= dead

    await runs.until(only_its_own_are_left)
    states = runs.states()
    assert sum(states.values()) == 500
    assert 0 < states["executing"] <= 5
    assert runs.claimed_by() == dead
    assert runs.attempts("executing") == {1}
    other.terminate()
    assert await ended(other) == 0
    assert set(runs.producers()) == dead


async def test_a_process_told_to_stop_under_load_orphans_nothing(
    runs: Runs, spawn: Spawn, sessions: Sessions
) -> None:
    await enqueue(sessions, [*notes(2_000), Job("failures.stuck", priority=9)])
    for _ in range(3):
        node = await spawn(limit=20)
        before = runs.count()
        await runs.until(lambda before=before: runs.count() > before + 100)
        node.terminate()
        assert await ended(node) == 0
        states = runs.states()
        assert set(states) <= {"available", "completed"}
        assert sum(states.values()) == 2_001
    last = await spawn(limit=20)
    await says(last, "stuck")
    await runs.until(lambda: runs.states().get("completed") == 2_000)
    last.terminate()
    assert await ended(last) == 0
    assert runs.states() == {"available": 1, "completed": 2_000}
    assert runs.attempts("available") == {0}
    assert set(runs.per_job().values()) == {1}
