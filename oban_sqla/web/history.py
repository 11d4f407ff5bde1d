"""History: the numbers of ended jobs over time, and their waits, read from the table."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..clock import client_now
from ..runtime.database import Database
from .ended import BUCKETS, are_more, ended, longest_wait

MOST = 10_000
"""The most jobs of a state that are read. If more have ended, a sample of the table is read."""
# The queue time is the wait that this percentage of jobs did not exceed.
PERCENT = 95


@dataclass(frozen=True, slots=True)
class Ended:
    """The jobs that ended in a bucket of time, or in a queue."""

    counts: Mapping[str, int]
    """By state."""
    queue_time: float | None
    """Seconds from due to claimed that 95 of 100 jobs did not exceed."""


@dataclass(frozen=True, slots=True)
class History:
    """The jobs that ended in a window of time up to now."""

    until: datetime
    window: float
    buckets: Sequence[Ended]
    queues: Mapping[str, Ended]
    total: Ended
    sampled: bool
    """Whether the counts are estimates, since a sample of the table was read."""


@dataclass(frozen=True, slots=True)
class Recent:
    """The rows that were read. All queues, and each single queue, get their history from them."""

    rows: Sequence[Any]
    window: float
    scale: float

    def history(self, queue: str | None = None) -> History:
        """The history of one queue, or of all queues."""
        rows = [row for row in self.rows if queue in (None, row.queue)]
        buckets, queues = defaultdict[int, list[Any]](list), defaultdict[str, list[Any]](list)
        for row in rows:
            buckets[row.bucket].append(row)
            queues[row.queue].append(row)
        return History(
            self.rows[0].until if self.rows else client_now().replace(tzinfo=None),
            self.window,
            [self._ended(buckets[number]) for number in range(BUCKETS)],
            {name: self._ended(own) for name, own in sorted(queues.items())},
            self._ended(rows),
            self.scale > 1,
        )

    def _ended(self, rows: Sequence[Any]) -> Ended:
        counts: Counter[str] = Counter()
        for row in rows:
            counts[row.state] += row.count
        scaled = {state: round(count * self.scale) for state, count in counts.items()}
        return Ended(scaled, queue_time(rows))


def queue_time(rows: Iterable[Any]) -> float | None:
    """The wait that 95 of 100 jobs did not exceed; `None` if none was claimed."""
    steps: Counter[int] = Counter()
    for row in rows:
        if row.step is not None:
            steps[row.step] += row.count
    wanted = sum(steps.values()) * PERCENT / 100
    for step in sorted(steps):
        wanted -= steps[step]
        if wanted <= 0:
            return longest_wait(step)
    return None


async def recent(database: Database, *, window: float, jobs: int, most: int = MOST) -> Recent:
    """Read the ended jobs. If a state has more than `most`, read a sample of about as many rows.

    jobs: about how many are in the table.
    """
    await database.verify()
    ((more,),) = await database.fetch(are_more(window, most))
    # A sample of most of the table would cost as much as the whole table, and be less exact.
    share = most / jobs if more and jobs > 3 * most else 1.0
    rows = await database.fetch(ended(window, share=share))
    return Recent(rows, window, 1 / share)
