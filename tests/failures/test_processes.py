"""Several processes: the jobs of a process that dies, or is told to stop."""

import signal

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job
from oban_sqla.models.on_discard import on_discard_entry
from tests.failures.conftest import Runs, Spawn, ended, enqueue, name_of, notes, says

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


async def test_each_of_5000_jobs_ends_while_one_of_three_nodes_is_killed(
    runs: Runs, spawn: Spawn, sessions: Sessions
) -> None:
    """The leader is killed. Another node takes over, and rescues the jobs of the dead one."""
    expiry = 5.0
    nodes = [await spawn(limit=10, heartbeat_expiry=expiry) for _ in range(3)]
    for _ in range(5):
        await enqueue(sessions, notes(1_000, 0.01))
    await runs.until(lambda: runs.count() >= 1_000 and runs.leader() is not None)
    killed = next(node for node in nodes if name_of(node) == runs.leader())
    dead = {uuid for uuid, name in runs.producers().items() if name == name_of(killed)}
    killed.kill()
    killed_at = runs.now()
    await ended(killed)
    await runs.all_completed(5_000)

    # Each job ran at least once; only jobs that the dead node had claimed ran twice.
    times = runs.per_job()
    assert len(times) == 5_000
    rescued = runs.rescued()
    # Ten ran. In 50 ms 50 jobs of 10 ms end: so many may be held, and so many unwritten.
    assert 0 < len(rescued) <= 10 + 50 + 50
    assert {id for id, count in times.items() if count > 1} <= rescued.keys()
    assert set(times.values()) <= {1, 2}
    assert runs.attempts("completed") == {1, 2}
    # It had sent a heartbeat before it was killed.
    assert max(rescued.values()) - killed_at < expiry + 1.0
    await runs.until(lambda: not runs.producers().keys() & dead, "its producers are left:")
    for node in nodes:
        if node is not killed:
            node.terminate()
            assert await ended(node) == 0
    assert runs.producers() == {}


async def test_a_worker_that_blocks_the_event_loop_does_not_make_its_node_look_dead(
    runs: Runs, spawn: Spawn, sessions: Sessions
) -> None:
    """Its heartbeat goes on, although its jobs stand still for three times the expiry."""
    expiry = 2.0
    blocked = await spawn(limit=5, heartbeat_expiry=expiry)
    await enqueue(sessions, [*notes(4, 0.5), Job("failures.block", {"blocked": 3 * expiry})])
    await says(blocked, "blocks")
    began = runs.now()
    assert runs.states() == {"executing": 5}
    # Another node leads, since this one can't renew its lease. That node would rescue orphans.
    other = await spawn(limit=5, heartbeat_expiry=expiry)
    await runs.until(lambda: runs.leader() == name_of(other))
    await enqueue(sessions, notes(50))
    await runs.all_completed(55)
    assert runs.now() - began >= 3 * expiry
    assert runs.rescued() == {}
    assert set(runs.per_job().values()) == {1}
    assert len(runs.per_job()) == 55
    assert runs.attempts("completed") == {1}
    for node in (blocked, other):
        node.terminate()
        assert await ended(node) == 0


async def test_a_process_that_stops_under_load_leaves_no_orphan(
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


async def test_each_discarded_job_is_followed_once_whichever_node_discards_it(
    runs: Runs, spawn: Spawn, sessions: Sessions
) -> None:
    """Some jobs kill their node in their last attempt, and the rescue discards them."""
    meta = on_discard_entry(vars(Job("failures.told")))
    jobs = [
        Job("failures.failing", {"fatal": n % 50 == 25}, max_attempts=1, meta=meta)
        for n in range(200)
    ]
    await enqueue(sessions, jobs)
    nodes = [await spawn(limit=5, heartbeat_expiry=1.0) for _ in range(2)]
    killed = 0
    while runs.states() != {"completed": 200, "discarded": 200}:
        await runs.until(
            lambda: (
                runs.states() == {"completed": 200, "discarded": 200}
                or any(node.returncode is not None for node in nodes)
            )
        )
        for node in [node for node in nodes if node.returncode is not None]:
            killed += 1
            nodes.remove(node)
            nodes.append(await spawn(limit=5, heartbeat_expiry=1.0))
    assert killed >= 1
    assert runs.followed() == {job.id: 1 for job in jobs}
