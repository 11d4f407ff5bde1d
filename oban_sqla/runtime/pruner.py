"""`Pruner`: deletes finished jobs that are past their retention."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from ..clock import LONGEST_INTERVAL
from ..config.retention import Retention
from ..errors import sqlstate
from ..events import PruneRefused, PruneStop
from ..models import JobState
from ..statements.prune import (
    FIRST,
    LOCK_TIMEOUT,
    expiring,
    oldest_finished,
    prune,
    prune_listed,
)
from .database import Database
from .service import Emit, Service
from .time_limits import ANSWER_TIMEOUT, deadline

INTERVAL = 60.0
# The most jobs of one statement, which is one transaction.
BATCH = 5000
# The most finished jobs that one statement reads to find a batch.
SCAN = 50_000
# Timeouts for deleting a part of a batch: for locks, and for the statement, which runs triggers of
# the user.
LIMITS = {"lock_timeout": LOCK_TIMEOUT, "statement_timeout": "30s"}
# The most statements of a pass that may fail for one rule. The next pass goes on after these jobs.
MOST_FAILURES = 100
# Seconds after which a rule reads all jobs again, to find jobs that the server refused to delete,
# and old jobs that were written before the position of the rule.
RETRY_AFTER = 3600.0
# A finished job whose transaction takes longer than this to commit is found after RETRY_AFTER.
COMMIT_TIME = timedelta(seconds=60)
# The most locked jobs that a rule remembers.
MOST_LOCKED = 1000
# The most refused jobs that are reported.
MOST_NAMED = 1000
# Classes of SQLSTATE that concern the connection or the server instead of the jobs.
_NOT_OF_JOBS = ("08", "25", "28", "53", "57P", "58", "XX")


@dataclass
class Rule:
    """Delete the jobs in `state` that finished more than `age` seconds ago."""

    state: JobState
    workers: list[str]
    """If `named`, the rule is for jobs of these workers, else for jobs of all other workers."""
    named: bool
    age: float
    after: tuple[datetime, int] = FIRST
    """The position: all jobs up to this time and id were handled."""
    locked: list[int] = field(default_factory=list)
    """The ids of jobs that another transaction had locked."""
    full: bool = False
    """Whether there may be more jobs to delete now."""
    due_at: float = 0.0
    """When the rule runs again, if it is not full, by the clock of `time.monotonic`."""
    retry_at: float = 0.0
    """When to begin again with the oldest jobs."""

    def parameters(self, *, older: float = 0.0, batch: int | None = None) -> dict[str, Any]:
        """The parameters of the rule's statements; `older` seconds are added to the age."""
        return {
            "workers": self.workers,
            "age": min(self.age + older, LONGEST_INTERVAL),
            "batch": BATCH if batch is None else batch,
        }

    def position(self) -> dict[str, Any]:
        """The parameters for the position from which the statements go on."""
        return {"after_at": self.after[0], "after_id": self.after[1], "scan": SCAN}

    def remember_locked(self, ids: list[int] | None) -> None:
        """Remember locked jobs, so that the next pass tries them again."""
        self.locked += ids or ()
        if len(self.locked) > MOST_LOCKED:
            # Too many: begin at the oldest jobs again instead.
            self.locked.clear()
            self.retry_at = 0.0


class Pruner(Service):
    """Deletes expired jobs in small batches, on the leader.

    The server may refuse to delete a job: because of a foreign key, a trigger, or a locked row that
    refers to the job. Then the batch is deleted in halves, without that job.
    """

    name = "pruner"
    begins_in = 1.0

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
        """Delete a batch for each rule. If a rule is full, the next pass comes at once."""
        if not self._is_leader():
            return math.inf
        started = time.monotonic()
        some_full = any(rule.full for rule in self._rules)
        total = 0
        failures: list[Exception] = []
        for rule in self._rules:
            if some_full and not rule.full and started < rule.due_at:
                continue
            rule.full, rule.due_at = False, started + INTERVAL
            try:
                total += await self._prune(rule)
            except Exception as error:
                if getattr(error, "connection_invalidated", False):
                    raise
                failures.append(error)
            else:
                if not rule.full and time.monotonic() >= rule.retry_at:
                    rule.after = FIRST
        self._emit("prune_stop", PruneStop(total, time.monotonic() - started))
        if failures:
            raise failures[0]
        return 0.0 if any(rule.full for rule in self._rules) else INTERVAL

    async def _prune(self, rule: Rule) -> int:
        """Delete a batch. Returns the number of deleted jobs."""
        if rule.after == FIRST:
            rule.retry_at = time.monotonic() + RETRY_AFTER
        count = await self._prune_locked(rule)
        params = rule.parameters() | rule.position()
        if not await self._database.fetch(oldest_finished(rule.state), params):
            return count
        try:
            statement = prune(rule.state, named=rule.named)
            (row,) = await self._database.fetch(statement, params)
        except (DBAPIError, TimeoutError) as error:
            if isinstance(error, DBAPIError) and not _is_of_jobs(error):
                raise
            return count + await self._prune_in_halves(rule)
        rule.full = row.more
        rule.after = (row.last_at, row.last_id) if row.more else _reached(rule.after, row.until)
        rule.remember_locked(row.locked)
        return count + int(row.deleted)

    async def _prune_locked(self, rule: Rule) -> int:
        locked, rule.locked = rule.locked, []
        try:
            count, _ = await self._delete_in_parts(rule, locked)
        except Exception:
            rule.locked = locked
            raise
        return count

    async def _prune_in_halves(self, rule: Rule) -> int:
        statement = expiring(rule.state, named=rule.named)
        jobs = await self._database.fetch(statement, rule.parameters() | rule.position())
        positions = {job.id: (job.finished_at, job.id) for job in jobs}
        count, left = await self._delete_in_parts(rule, [job.id for job in jobs if job.wanted])
        read = [job for job in jobs if not left or positions[job.id] < positions[left[0]]]
        if read:
            rule.after = positions[read[-1].id]
        rule.full = bool(left) or len(jobs) == BATCH or any(job.last for job in jobs)
        return count

    async def _delete_in_parts(self, rule: Rule, ids: list[int]) -> tuple[int, list[int]]:
        """Delete jobs except refused ones. Returns the number, and ids that were not tried."""
        refused: dict[int, DBAPIError] = {}
        count = failures = 0
        parts = [ids] if ids else []
        while parts and failures < MOST_FAILURES:
            part = parts.pop()
            try:
                count += await self._delete(rule, part)
            except DBAPIError as error:
                if not _is_of_jobs(error):
                    raise
                failures += 1
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                    continue
                refused[part[0]] = error
        self._name(rule.state, refused)
        return count, [id for part in reversed(parts) for id in part]

    def _name(self, state: JobState, refused: dict[int, DBAPIError]) -> None:
        new = [id for id in refused if id not in self._named]
        if new and len(self._named) < MOST_NAMED:
            self._named.update(new)
            cause = refused[new[0]].orig or refused[new[0]]
            self._emit("prune_refused", PruneRefused(state, tuple(new), cause))

    async def _delete(self, rule: Rule, ids: list[int]) -> int:
        async with deadline(ANSWER_TIMEOUT), self._database.shared_transaction() as connection:
            limits = (func.set_config(name, limit, True) for name, limit in LIMITS.items())
            await connection.execute(select(*limits))
            params = {"ids": ids, "age": rule.parameters()["age"]}
            row = (await connection.execute(prune_listed(rule.state), params)).one()
        rule.remember_locked(row.locked)
        return int(row.deleted)


def _reached(after: tuple[datetime, int], until: datetime) -> tuple[datetime, int]:
    return max(after, (until - COMMIT_TIME, 0))


def rules(retention: Retention) -> Iterator[Rule]:
    """The rules that delete the jobs past a retention."""
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
        return False  # the role must not delete any job
    return bool(state) and not state.startswith(_NOT_OF_JOBS)
