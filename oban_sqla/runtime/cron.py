"""`Cron`: enqueues a job for each tick of the cron entries that workers declare."""

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from ..enqueue.enqueue import enqueue
from ..events import CronStop
from ..models import Job
from ..statements.cron import advance, booted, enter, limit_idle, lock
from ..workers.cron import REBOOT
from ..workers.cron import Cron as Entry
from ..workers.declaration import Declaration
from ..workers.registry import with_cron
from .database import Database
from .service import Emit, Service
from .time_limits import ANSWER_TIMEOUT, deadline

# The most missed ticks of one entry in one transaction.
MOST_TICKS = 1000
# The last tick that a new @reboot entry gets, so that the entry ticks at once.
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
# Seconds until the database's clock is read again, since it may be set.
LONGEST_SLEEP = 60.0
# If the clock is set back by more than this, it was wrong, and the ticks of the wrong time are
# forgotten, as in cron. After a smaller step, no tick comes until the clock has passed the last
# tick.
CORRECTION = timedelta(hours=3)


_Entries: TypeAlias = Mapping[str, tuple[Declaration, Entry]]
"""The workers with their entries, by the labels of the entries."""


@dataclass(slots=True)
class _Decision:
    """The changes that a pass writes."""

    jobs: list[Job] = field(default_factory=list)
    ticked: dict[str, datetime] = field(default_factory=dict)
    """The last tick of each entry whose row changes."""
    more: bool = False
    """Whether an entry has missed more ticks than one pass enqueues."""


class Cron(Service):
    """Enqueues the jobs of due ticks, on the leader.

    A pass locks the rows of the entries, which store the last enqueued ticks. So no tick is missed,
    and each is enqueued once, even if two nodes believe that they are the leader.
    """

    name = "cron"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        is_leader: Callable[[], bool],
        instance: str,
        timezone: str,
        wake_queues: Callable[[Collection[str]], None],
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._is_leader = is_leader
        self._instance = instance
        self._timezone = timezone
        self._wake_queues = wake_queues
        self.now: datetime | None = None
        """An instant that tests set instead of the database's clock."""

    async def run_once(self) -> float:
        """Enqueue the jobs of due ticks, and wait for the next tick."""
        if not self._is_leader():
            return math.inf
        entries = {cron.label(w.name): (w, cron) for w in with_cron() if (cron := w.cron)}
        if not entries:
            return LONGEST_SLEEP
        started = time.monotonic()
        async with deadline(ANSWER_TIMEOUT), self._database.shared_transaction() as connection:
            reboots = [key for key, (_, cron) in entries.items() if cron.expr == REBOOT]
            await connection.execute(limit_idle())
            await connection.execute(enter(self._instance, reboots, now=NEVER))
            await connection.execute(enter(self._instance, [*entries], now=self.now))
            locked = await connection.execute(lock(self._instance, [*entries], now=self.now))
            rows = locked.all()
            due = self._decide(entries, rows, await connection.scalar(booted(self._instance)))
            if due.jobs:
                await enqueue(due.jobs, connection, prefix=self._database.prefix)
            if due.ticked:
                await connection.execute(advance(self._instance, due.ticked))
        queues = tuple(sorted({job.queue for job in due.jobs}))
        self._wake_queues(queues)
        duration = time.monotonic() - started
        self._emit("cron_stop", CronStop(len(due.jobs), queues, duration))
        if due.more:
            return 0.0
        return self._until_next([cron for _, cron in entries.values()], rows[0].now, duration)

    def _decide(
        self, entries: _Entries, rows: Sequence[Any], booted_at: datetime | None
    ) -> _Decision:
        """Decide which jobs to enqueue, from the rows of the entries."""
        due = _Decision()
        for row in rows:
            worker, cron = entries[row.entry]
            ticks, left = self._due(cron, row.ticked_at, row.now, booted_at)
            due.jobs += [job_of_tick(worker, cron, tick, self._timezone) for tick in ticks]
            due.more = due.more or left
            if ticks:
                due.ticked[row.entry] = ticks[-1]
            elif cron.expr != REBOOT and row.ticked_at - row.now > CORRECTION:
                due.ticked[row.entry] = row.now
        return due

    def _due(
        self, cron: Entry, since: datetime, now: datetime, booted_at: datetime | None
    ) -> tuple[list[datetime], bool]:
        if cron.expr == REBOOT:
            # The nodes were restarted if the oldest one started after the last tick. A start in the
            # future was before the clock was set back, so that node already ran at the last tick.
            if booted_at is None or booted_at > now:
                return [], False
            return ([now] if since < booted_at or since - now > CORRECTION else []), False
        return cron.due(since, now, self._timezone, MOST_TICKS)

    def _until_next(self, entries: Iterable[Entry], now: datetime, elapsed: float) -> float:
        ticks = (next(cron.after(now, self._timezone), None) for cron in entries)
        next_at = min((tick for tick in ticks if tick is not None), default=None)
        if next_at is None:
            return LONGEST_SLEEP
        return max(0.001, min(LONGEST_SLEEP, (next_at - now).total_seconds() - elapsed))


def job_of_tick(worker: Declaration, cron: Entry, tick: datetime, timezone: str) -> Job:
    """The job that a tick of an entry enqueues."""
    meta = {
        "cron": True,
        "cron_at": tick.astimezone(UTC).isoformat(),
        "cron_expr": cron.expr,
        "cron_name": cron.label(worker.name),
        "cron_tz": cron.timezone or timezone,
    }
    return worker.new_job({}, {"meta": {**worker.meta, **meta}})
