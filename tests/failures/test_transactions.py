"""Workers with a session: their changes happen once, even if processes are killed."""

import random
from collections import Counter

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job
from tests.failures.conftest import Runs, Spawn, ended, enqueue

pytestmark = pytest.mark.torture

# Enough accounts that deadlocks, which take a second each, happen but are rare.
ACCOUNTS = 300

Sessions = async_sessionmaker[AsyncSession]


async def test_money_is_moved_exactly_once_while_processes_are_killed(
    runs: Runs, spawn: Spawn, sessions: Sessions
) -> None:
    """Deadlocks happen, too: the accounts are locked in either order."""
    runs.open_accounts(ACCOUNTS, balance=1_000)
    pairs = [random.sample(range(1, ACCOUNTS + 1), 2) for _ in range(3_000)]
    transfers = [(*pair, random.randint(1, 50)) for pair in pairs]
    jobs = [Job("failures.transfer", {"transfer": [*t]}, max_attempts=50) for t in transfers]
    await enqueue(sessions, jobs)
    nodes = [await spawn(limit=8, heartbeat_expiry=1.0) for _ in range(3)]
    for goal in sorted(random.sample(range(50, 2_500), 6)):
        await runs.until(lambda goal=goal: runs.completed() >= goal)
        victim = nodes.pop(0)
        victim.kill()
        await ended(victim)
        nodes.append(await spawn(limit=8, heartbeat_expiry=1.0))
    await runs.all_completed(3_000)

    changes, moves = Counter(), Counter()
    for source, target, amount in transfers:
        changes.update({target: amount})
        changes.subtract({source: amount})
        moves.update((source, target))
    assert runs.accounts() == {
        id: (1_000 + changes[id], moves[id]) for id in range(1, ACCOUNTS + 1)
    }
    assert sum(balance for balance, _ in runs.accounts().values()) == 1_000 * ACCOUNTS
    # Some runs were really cut off and repeated.
    assert runs.rescued()
