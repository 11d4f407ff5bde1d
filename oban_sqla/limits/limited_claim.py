"""`LimitedClaim`: claim the jobs of a queue within limits over all nodes."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from ..config.queues import Queue
from ..runtime.claim_position import ClaimPosition
from ..runtime.claiming import Claim, PlainClaim
from ..runtime.database import Database
from ..runtime.raw_statement import RawStatement
from ..statements.announce import announce, freed
from ..statements.claimed import Claimed
from ..workers.registry import declarations
from .holds import forget_rates, held_name, hold
from .keyed_claim import WHOLE, claim_keyed
from .lock import lock_keys, lock_queue
from .queue_claim import claim_within_global_limit
from .queue_keying import QueueKeying
from .queue_keys import QueueKeys
from .queue_limits import QueueLimits
from .search import Search
from .starts import take_back_starts

CLEAR_INTERVAL = 600.0
"""Seconds between two deletions of unused rows of rates and keys."""
TELL_INTERVAL = 0.05
"""Seconds between two notifications about free slots."""
SOONEST = 0.0002
"""Seconds added to the time of the next permit, since the clocks differ a little."""


class LimitedClaim:
    """Claims like `PlainClaim` while nothing is limited; otherwise counts jobs under a lock."""

    def __init__(
        self, database: Database, queue: Queue, node: str, poll_interval: Callable[[], float]
    ) -> None:
        self._plain = PlainClaim(database, queue, node, poll_interval)
        self._database = database
        self._params = {"queue_name": queue.name, "node_name": node}
        self._poll_interval = poll_interval
        self._limits = QueueLimits(queue)
        # Whether jobs of this queue may have limits of their own. Known at once from the imported
        # workers, otherwise from the first limited job that a claim returns.
        limited = [w for w in declarations() if w.queue == queue.name and (w.limit or w.rate)]
        self._keyed = bool(limited)
        # Whether jobs of this queue may have rates, which make a claim more expensive.
        self._rated = any(worker.rate for worker in limited)
        # The statement of the last claim by keys, keyed by the keys of the queue and whether rates
        # count.
        self._statements: dict[tuple[QueueKeys | None, bool], RawStatement] = {}
        self._position = ClaimPosition()
        self._cursor = ""
        self._search = Search()
        self._cleared_at = time.monotonic()
        # The new holds: the seconds by the name of a rate or a key.
        self._holds: dict[str, float] = {}
        # For a queue that counts by keys: the writer of the keys.
        self._keying: tuple[QueueKeys, QueueKeying] | None = None
        # Whether a limit may have delayed jobs at the last claim.
        self._blocked = False
        # Whether jobs have ended since the last claim was sent.
        self._missed = False
        # Whether jobs of this producer have ended, and other nodes may use their slots.
        self._untold = False
        self._told_at = -math.inf
        self._producer = ""
        # The ids of claimed jobs that go back, and whose starts were not counted.
        self._uncounted: set[int] = set()

    # These statements are made when they are used: a queue without limits does not need them, and
    # making the statement by keys takes 40 ms.
    @cached_property
    def _statement_by_queue(self) -> RawStatement:
        statement = claim_within_global_limit()
        return RawStatement(self._database, statement, behind=lock_queue())

    def _statement_by_key(self) -> RawStatement:
        which = self._limits.keys, self._counts_rates
        if which not in self._statements:
            statement = claim_keyed(which[0], rates=which[1])
            self._statements = {which: RawStatement(self._database, statement, behind=lock_keys())}
        return self._statements[which]

    @property
    def _counts_rates(self) -> bool:
        """Whether rates may count jobs of this queue."""
        return self._rated or self._limits.rate is not None

    @property
    def may_claim_ahead(self) -> bool:
        return not (self._keyed or self._limits.any)

    @property
    def meta(self) -> Mapping[str, Any]:
        return self._limits.meta

    def news(self) -> None:
        self._plain.news()
        self._position.news()
        self._search.news()
        if self._keying is not None:
            self._keying[1].news()

    def frees(self, *, here: bool) -> bool:
        if here and not self.may_claim_ahead:
            self._untold = True
        # A claim on its way may not see that these jobs have ended.
        self._missed = True
        return self._blocked

    def change_limits(self, changes: Mapping[str, Any]) -> bool:
        return self._limits.change(changes)

    def hold(self, job: Claimed, seconds: float) -> None:
        if (name := held_name(job)) is not None:
            self._holds[name] = seconds

    async def write_holds(self) -> None:
        for name in list(self._holds):
            await self._database.fetch(hold(), {"rate_id": name, "seconds": self._holds[name]})
            del self._holds[name]
        if self._keyed and time.monotonic() - self._cleared_at > CLEAR_INTERVAL:
            self._cleared_at = time.monotonic()
            await self._database.fetch(forget_rates())

    @property
    def tell_in(self) -> float:
        if not self._untold:
            return math.inf
        return max(0.0, self._told_at + TELL_INTERVAL - time.monotonic())

    async def tell(self) -> None:
        if self.tell_in > 0:
            return
        # Jobs of other queues may wait for the limit of a key.
        queue = None if self._keyed else str(self._params["queue_name"])
        statement = announce(prefix=self._database.prefix)
        self._told_at, self._untold = time.monotonic(), False
        try:
            await self._database.fetch(statement, freed(self._producer, queue))
        except BaseException:
            self._untold = True
            raise

    async def claim(self, demand: int, producer: str) -> Claim:
        if self.may_claim_ahead:
            self._blocked = False
            return self._without_keyed(await self._plain.claim(demand, producer))
        untold, self._untold, self._missed = self._untold, False, False
        self._producer = producer
        # Whether other nodes may still use the slots of jobs that ended before the claim.
        unused = True
        try:
            if self._counts_by_key:
                claim = await self._claim_by_key(demand, producer)
            else:
                claim = self._without_keyed(await self._claim_by_queue(demand, producer))
                unused = not claim.exhausted
        finally:
            self._untold |= untold and unused
        return claim._replace(exhausted=False) if self._blocked and self._missed else claim

    async def gave_back(self, ids: Sequence[int]) -> None:
        self._untold |= not self.may_claim_ahead
        counted = [id for id in ids if id not in self._uncounted]
        self._uncounted.difference_update(ids)
        if counted and self._counts_rates:
            params = {"ids": counted, "queue_name": self._params["queue_name"]}
            await self._database.fetch(take_back_starts(), {**params, **self._limits.params})

    @property
    def _counts_by_key(self) -> bool:
        """Whether a claim has to count jobs by their keys."""
        limits = self._limits
        return self._keyed or limits.rate is not None or limits.keys is not None

    async def _claim_by_queue(self, demand: int, producer: str) -> Claim:
        rows, duration = await self._fetch(
            self._statement_by_queue, demand, producer, **self._position.next()
        )
        room = rows[0][-1]
        jobs = [Claimed(row[:-1]) for row in rows if row[0] is not None]
        full = len(jobs) == min(demand, room)
        self._blocked = full and room <= demand
        self._position.claimed(jobs, full=full, duration=duration)
        exhausted = self._blocked or (not full and self._position.at_front)
        return Claim(jobs, len(jobs) == demand, exhausted, duration, again_in=self._again_in(None))

    async def _claim_by_key(self, demand: int, producer: str) -> Claim:
        unkeyed, keying_in = False, math.inf
        if (queue_keys := self._limits.keys) is not None:
            unkeyed, keying_in = await self._write_keys(queue_keys)
        own = {"cursor": self._cursor, "since": self._search.since()}
        rows, duration = await self._fetch(self._statement_by_key(), demand, producer, **own)
        room, blocked, more, next_in, complete, searched_at, started, rated = rows[0][-WHOLE:]
        self._rated |= rated
        found = [row[: -WHOLE - 1] for row in rows if row[0] is not None]
        keys = [row[-WHOLE - 1] for row in rows if row[0] is not None]
        self._cursor = next((key for key in reversed(keys) if key is not None), self._cursor)
        jobs = [Claimed(row) for row in found]
        others = [job for job, key in zip(jobs, keys, strict=True) if key is None]
        self._search.found(others, searched_at if complete else None, duration)
        full = len(jobs) == demand
        self._blocked = blocked or room <= demand
        self._limits.started = (started or 0) + (len(jobs) if self._limits.rate else 0)
        # Jobs with a rate are left to the next claim, which counts their starts.
        exhausted = not (full or unkeyed or rated or (more and len(jobs) < room))
        again_in = min(self._again_in(next_in), self._search.again_in, keying_in)
        return Claim(jobs, full, exhausted, duration, again_in=again_in)

    async def _write_keys(self, keys: QueueKeys) -> tuple[bool, float]:
        """Write the keys by which the queue itself counts waiting jobs.

        Returns whether jobs may be left without keys, and the seconds until the next search among
        all jobs.
        """
        if self._keying is None or self._keying[0] != keys:
            self._keying = keys, QueueKeying(self._database, keys)
        _, keying = self._keying
        # Jobs that get their keys now may be limited elsewhere, too: other nodes hear of all slots.
        self._keyed = True
        unkeyed = await keying.write(self._params)
        return unkeyed, keying.again_in

    async def _fetch(
        self, statement: RawStatement, demand: int, producer: str, **more: Any
    ) -> tuple[Sequence[Any], float]:
        started = time.monotonic()
        own = {"home": self._database.prefix, "limit": demand, "producer": producer}
        rows = await statement.fetch({**self._params, **own, **self._limits.params, **more})
        return rows, time.monotonic() - started

    def _again_in(self, next_in: float | None) -> float:
        """Seconds until a limit may let a job start, at most the poll interval.

        There is no notification if an executing job is deleted, or a node with a free slot dies.
        """
        if not self._blocked:
            return math.inf
        poll = self._poll_interval()
        return poll if next_in is None else min(poll, max(0.0, next_in) + SOONEST)

    def _without_keyed(self, claim: Claim) -> Claim:
        """The claim without its limited jobs, which go back: the claim ignored their limits."""
        if not (keyed := [job.id for job in claim.jobs if job.may_be_limited]):
            return claim
        self._uncounted.update(keyed)
        self._keyed = True
        others = [job for job in claim.jobs if not job.may_be_limited]
        return claim._replace(jobs=others, full=False, exhausted=False, unwanted=keyed)
