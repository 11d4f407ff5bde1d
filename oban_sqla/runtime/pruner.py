"""The pruner: deletes finished jobs that are past their retention."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from ..clock import LONGEST_INTERVAL
from ..config import Retention
from ..errors import sqlstate
from ..events import PruneRefused, PruneStop
from ..models import JobState
from ..statements.prune import FIRST, LOCK_TIMEOUT, expired, prune, prune_listed
from .database import ANSWER_TIMEOUT, Database, deadline
from .service import Emit, Service

INTERVAL = 60.0
# How many jobs one statement, which is one transaction, deletes.
BATCH = 5000
# How long the deletion of a part of a batch may wait for locks, and for the user's triggers.
LIMITS = {"lock_timeout": LOCK_TIMEOUT, "statement_timeout": "30s"}
# How many statements of a pass may fail for one rule. The next pass goes on behind them.
MOST_FAILURES = 100
# Seconds after which the server is asked again to delete the jobs that it refused to delete.
RETRY_AFTER = 3600.0
# How many refused jobs are named.
MOST_NAMED = 1000
# Classes of SQLSTATE that concern the connection or the server, not the jobs to be deleted.
_NOT_OF_JOBS = ("08", "25", "28", "53", "57P", "58", "XX")


@dataclass
class Rule:
    """Delete the jobs in `state` that finished more than `age` seconds ago."""

    state: JobState
    workers: list[str]
    """Jobs of these workers if they are `named`, else jobs of all others."""
    named: bool
    age: float
    after: tuple[datetime, int] = FIRST
    """All jobs up to this time and id were deleted, are locked, or were refused."""
    retry_at: float = 0.0
    """When to begin anew with the oldest jobs, by the clock of `time.monotonic`."""

    def parameters(self, *, older: float = 0.0, batch: int | None = None) -> dict[str, Any]:
        """What its statements are run with; `older` seconds are added to the age."""
        return {
            "workers": self.workers,
            "age": min(self.age + older, LONGEST_INTERVAL),
            "batch": BATCH if batch is None else batch,
            "after_at": self.after[0],
            "after_id": self.after[1],
        }


class Pruner(Service):
    """Deletes in small batches until nothing is left to delete, on the leader.

    The server may refuse to delete a job: a foreign key or a trigger of the user's forbids it, or
    somebody locks a row that refers to it. Then the batch is deleted in halves, without that job.
    """

    name = "pruner"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        is_leader: Callable[[], bool],
        retention: Retention,
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._is_leader = is_leader
        self._rules = list(rules(retention))
        self._named: set[int] = set()

    async def run_once(self) -> float:
        """Delete a batch by each rule; make another pass at once while one is full."""
        if not self._is_leader():
            return math.inf
        started = time.monotonic()
        total, full = 0, False
        failures: list[Exception] = []
        for rule in self._rules:
            try:
                count, more = await self._prune(rule)
            except Exception as error:
                if getattr(error, "connection_invalidated", False):
                    raise
                failures.append(error)
            else:
                total += count
                full = full or more
                if not more and time.monotonic() >= rule.retry_at:
                    rule.after = FIRST
        self._emit("prune_stop", PruneStop(total, time.monotonic() - started))
        if failures:
            raise failures[0]
        return 0.0 if full else INTERVAL

    async def _prune(self, rule: Rule) -> tuple[int, bool]:
        """Delete a batch: how many jobs were deleted, and whether more may be left."""
        try:
            statement = prune(rule.state, named=rule.named)
            (row,) = await self._database.fetch(statement, rule.parameters())
        except (DBAPIError, TimeoutError) as error:
            if isinstance(error, DBAPIError) and not _is_of_jobs(error):
                raise
            return await self._prune_in_halves(rule)
        return row.count, row.count == BATCH

    async def _prune_in_halves(self, rule: Rule) -> tuple[int, bool]:
        jobs = await self._database.fetch(expired(rule.state, named=rule.named), rule.parameters())
        refused: dict[int, DBAPIError] = {}
        count = failures = 0
        parts = [jobs] if jobs else []
        if rule.after == FIRST:
            rule.retry_at = time.monotonic() + RETRY_AFTER
        while parts and failures < MOST_FAILURES:
            part = parts.pop()
            try:
                count += await self._delete(rule.state, [job.id for job in part])
            except DBAPIError as error:
                if not _is_of_jobs(error):
                    raise
                failures += 1
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                    continue
                refused[part[0].id] = error
            rule.after = (part[-1].finished_at, part[-1].id)
        self._name(rule.state, refused)
        return count, bool(parts) or len(jobs) == BATCH

    def _name(self, state: JobState, refused: dict[int, DBAPIError]) -> None:
        new = [id for id in refused if id not in self._named]
        if new and len(self._named) < MOST_NAMED:
            self._named.update(new)
            cause = refused[new[0]].orig or refused[new[0]]
            self._emit("prune_refused", PruneRefused(state, tuple(new), cause))

    async def _delete(self, state: JobState, ids: list[int]) -> int:
        async with deadline(ANSWER_TIMEOUT), self._database.transaction() as connection:
            limits = (func.set_config(name, limit, True) for name, limit in LIMITS.items())
            await connection.execute(select(*limits))
            result = await connection.execute(prune_listed(state), {"ids": ids})
            deleted: int = result.scalar_one()
            return deleted


def rules(retention: Retention) -> Iterator[Rule]:
    """What has to be deleted so that finished jobs are kept as long as is said, and no longer."""
    named = sorted(retention.workers)
    for state, age in retention.states.items():
        if age is not None:
            yield Rule(JobState(state), named, False, age)
    for worker in named:
        for state, age in retention.workers[worker].items():
            if age is not None:
                yield Rule(JobState(state), [worker], True, age)


def _is_of_jobs(error: DBAPIError) -> bool:
    state = sqlstate(error)
    if state == "42501" and "oban_jobs" in str(error.orig):
        return False  # the role may delete no job at all
    return bool(state) and not state.startswith(_NOT_OF_JOBS)
