"""Transfers of money by workers with a session, beside jobs that note their runs."""

import random
from asyncio.subprocess import Process
from collections import Counter

from sqlalchemy.ext.asyncio import async_sessionmaker

from oban_sqla import Job
from tests.databases import async_engine
from tests.failures.conftest import Runs, Spawn, ended, enqueue, notes

# Enough accounts that deadlocks, which take a second each, are rare.
ACCOUNTS = 300
BALANCE = 1_000


class Bank:
    """Accounts, and two nodes that transfer money between them while something fails."""

    def __init__(self, runs: Runs, *, notes: int = 800, transfers: int = 400) -> None:
        self.runs = runs
        self._notes = notes
        pairs = [random.sample(range(1, ACCOUNTS + 1), 2) for _ in range(transfers)]
        self._transfers = [(*pair, random.randint(1, 50)) for pair in pairs]

    async def open(self, spawn: Spawn, **options: object) -> list[Process]:
        """Open the accounts, start the nodes, and enqueue all jobs."""
        runs = self.runs
        runs.open_accounts(ACCOUNTS, BALANCE)
        options |= {"runs_dsn": runs.dsn, "schema": runs.prefix, "heartbeat_expiry": 2.0}
        nodes = [await spawn(runs.dsn, limit=10, **options) for _ in range(2)]
        jobs = [
            Job("failures.transfer", {"transfer": [*transfer]}, max_attempts=50)
            for transfer in self._transfers
        ]
        engine = async_engine(runs.dsn, runs.prefix)
        await enqueue(async_sessionmaker(engine), [*notes(self._notes, 0.005), *jobs])
        await engine.dispose()
        return nodes

    async def close(self, nodes: list[Process]) -> None:
        """Wait for all jobs, check that each transfer has happened once, and stop the nodes."""
        await self.runs.all_completed(self._notes + len(self._transfers))
        assert self.runs.accounts() == self._expected()
        assert len(self.runs.per_job()) == self._notes
        for node in nodes:
            node.terminate()
            assert await ended(node) == 0

    def _expected(self) -> dict[int, tuple[int, int]]:
        """The balance of each account, and the number of its changes."""
        changes, moves = Counter(), Counter()
        for source, target, amount in self._transfers:
            changes.update({target: amount})
            changes.subtract({source: amount})
            moves.update((source, target))
        return {id: (BALANCE + changes[id], moves[id]) for id in range(1, ACCOUNTS + 1)}
