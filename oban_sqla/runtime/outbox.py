"""The outbox: where outcomes wait to be written, those of all queues of a node together."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.exc import DBAPIError

from .. import wakeups
from ..errors import sqlstate
from ..events import AckStop, OutcomeDelayed, OutcomeRefused
from ..models import JobState
from ..statements.acknowledge import (
    Ack,
    acknowledge,
    acknowledge_discards,
    encoded_outcomes,
    unsettled,
)
from .database import Database
from .following import Followed, InTransaction, follow_by
from .raw_statement import RawStatement
from .service import Emit, Service
from .time_limits import ANSWER_TIMEOUT, FAREWELL, deadline
from .unwritten import Unwritten, first_line
from .worker_session import Written

BATCH = 1000
"""How many outcomes one statement writes."""
FULL = 5000
"""How many outcomes may wait before the producers claim no more."""
FIRST_DELAY, LONGEST_DELAY = 0.05, 30.0
"""Seconds until an outcome that could not be written is tried again, apart from the others."""
NAMED_AFTER = 1.0
"""Seconds after which an outcome that waits for a lock is reported."""
FAREWELL_TRIES = 3
"""How often a stop tries: the pool may hold connections that were cut while nobody used them."""
# By class of SQLSTATE: the connection, the server or its resources, a conflict, a lock, a wrong
# password, a missing database. No single outcome is the reason, so all wait for better times.
PASSING = ("08", "53", "55", "57", "58", "40", "25", "28", "3D")
# A statement took longer than the server allows: half as many outcomes may not.
TOO_SLOW = "57014"
# Tables and columns that are missing: no fault of the attempt, which so does not fail for it.
STRUCTURE = "42"

# The database's encoding has no such characters.
NOT_IN_ENCODING = ("22P05", "22021")


class Outbox(Service):
    """Writes outcomes as soon as the last write is back, up to `BATCH` in one statement.

    The statement is fenced, so it may be repeated when its answer got lost. An outcome whose job
    is locked, or that the database refuses, is set apart and tried again by itself: no other
    outcome waits for it.
    """

    name = "outbox"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        due_in: Callable[[float], None],
        written: Callable[[Iterable[int]], None],
        freed: Callable[[], None],
    ) -> None:
        """An outbox that tells when the next retry is due, what it has written, and when it is
        not `full` any more.
        """
        super().__init__(emit)
        self._database = database
        self._statements = [
            RawStatement(database, self._acknowledge(discards), at_once=True)
            for discards in (False, True)
        ]
        self._due_in = due_in
        self._written = written
        self._freed = freed
        # Written outcomes from which nothing followed yet, since rows were locked.
        self._late: set[int] = set()
        self._late_due = math.inf
        self._waiting: dict[Unwritten, None] = {}
        self._apart: dict[Unwritten, None] = {}
        self._settled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._apart)

    @property
    def full(self) -> bool:
        """Whether so many outcomes wait that the producers must not claim more jobs."""
        return len(self) >= FULL

    def put(self, ack: Ack, queue: str, *, last: bool) -> None:
        """Take an outcome to be written; `last` if it is that of the last attempt of its job."""
        self._waiting[Unwritten(ack, queue, last)] = None
        self.wake()

    def note(self, written: Written, queue: str) -> None:
        """Take note of an outcome that a worker's own transaction wrote."""
        ack, applied = written.ack, written.applied
        dropped = () if applied else (ack.id,)
        self._emit("ack_stop", AckStop(queue, int(applied), dropped, written.duration))
        if applied:
            self._written([ack.id])
            self._tell(written.followed)
            if ack.delay is not None:
                self._due_in(ack.delay)

    def ids(self, queue: str) -> list[int]:
        """The jobs of a queue whose outcomes wait."""
        return [one.ack.id for one in (*self._waiting, *self._apart) if one.queue == queue]

    def delayed(self, queue: str) -> list[int]:
        """The jobs of a queue whose outcomes were reported as delayed."""
        return [one.ack.id for one in self._apart if one.reported and one.queue == queue]

    async def run_once(self) -> float:
        """Write what waits, and try again what was set apart."""
        was_full = self.full
        if batch := list(islice(self._waiting, BATCH)):
            await self._write_parts(batch)
        now = time.monotonic()
        if due := [one for one in self._apart if one.due <= now][:BATCH]:
            await self._write_parts(due)
        if self._late_due <= now:
            await self._follow_late()
        if was_full and not self.full:
            self._freed()
        if self._waiting:
            return 0.0
        soonest = min((one.due for one in self._apart), default=math.inf)
        return max(0.0, min(soonest, self._late_due) - now)

    async def settle(self, queue: str, seconds: float) -> None:
        """Wait until no outcome of a queue waits any more, or the time is over."""
        try:
            async with asyncio.timeout(seconds):
                while any(one.queue == queue for one in self._waiting):
                    self._settled.clear()
                    await self._settled.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        """Try once more; what can't be written now is left to the rescue of its job."""
        if self._waiting or self._apart:
            for one in self._apart:
                one.due = 0.0
            async with deadline(FAREWELL):
                for tries in range(1, FAREWELL_TRIES + 1):
                    try:
                        while await self.run_once() == 0.0:
                            pass
                        return
                    except Exception:
                        if tries == FAREWELL_TRIES:
                            raise

    async def _write_parts(self, batch: Sequence[Unwritten]) -> None:
        """Write outcomes: those that jobs follow from apart, in a transaction with these jobs."""
        followed = [one for one in batch if one.ack.followed]
        if plain := [one for one in batch if not one.ack.followed] if followed else batch:
            await self._write(plain)
        if followed:
            await self._write(followed)

    async def _write(self, batch: Sequence[Unwritten]) -> None:
        started = time.monotonic()
        try:
            applied = await self._send(batch)
        except Exception as error:
            state = sqlstate(error)
            if not _concerns_some(state, len(batch)):
                raise
            if len(batch) == 1:
                self._refused(batch[0], error, state)
                return
            # Search by halves for the one that is refused.
            half = len(batch) // 2
            await self._write(batch[:half])
            await self._write(batch[half:])
            return
        missing = [one for one in batch if one.ack.id not in applied]
        locked = await self._locked(missing) if missing else frozenset()
        self._settle(batch, applied, locked, time.monotonic() - started)

    async def _send(self, batch: Sequence[Unwritten]) -> frozenset[int]:
        params = encoded_outcomes(one.text for one in batch)
        discards = any(one.ack.state is JobState.DISCARDED for one in batch)
        try:
            if batch[0].ack.followed:
                return await self._send_followed(params, discards)
            rows = await self._statements[discards].fetch(params)
        except BaseException:
            for one in batch:
                one.sent = True
            raise
        return frozenset(row[0] for row in rows)

    def _acknowledge(self, discards: bool) -> Executable:
        if discards:
            return acknowledge_discards(prefix=self._database.prefix, skip_locked=True)
        return acknowledge(skip_locked=True)

    async def _send_followed(self, params: Mapping[str, Any], discards: bool) -> frozenset[int]:
        database = self._database
        try:
            async with deadline(ANSWER_TIMEOUT), database.transaction() as connection:
                fetches = InTransaction(connection)
                rows = await fetches.fetch(self._acknowledge(discards), params)
                ids = [row[0] for row in rows]
                followed = await follow_by(fetches, ids, database.prefix) if ids else Followed()
        except DBAPIError as error:
            if not _concerns_some(sqlstate(error), 2):
                raise
            # Whatever is wrong with the jobs that follow, it must not keep an outcome from the
            # table: the leader repairs the rest, or reports why it can't.
            rows = await self._statements[discards].fetch(params)
            return frozenset(row[0] for row in rows)
        self._tell(followed)
        return frozenset(ids)

    async def _follow_late(self) -> None:
        late, self._late, self._late_due = self._late, set(), math.inf
        database = self._database
        try:
            async with deadline(ANSWER_TIMEOUT), database.transaction() as connection:
                followed = await follow_by(InTransaction(connection), [*late], database.prefix)
        except DBAPIError as error:
            if not _concerns_some(sqlstate(error), 2):
                self._late, self._late_due = late, 0.0
                raise
            return
        self._tell(followed)

    def _tell(self, followed: Followed) -> None:
        wakeups.publish(self._database.address, self._database.prefix, followed.wakeup)
        self._written(followed.ended)
        for name, event in followed.events:
            self._emit(name, event)
        if followed.late:
            self._late.update(followed.late)
            self._late_due = time.monotonic() + FIRST_DELAY

    async def _locked(self, missing: Sequence[Unwritten]) -> frozenset[int]:
        """The ids of missing outcomes whose job another transaction locks."""
        params = encoded_outcomes(one.text for one in missing)
        return frozenset(id for (id,) in await self._database.fetch(unsettled(), params))

    def _settle(
        self,
        batch: Sequence[Unwritten],
        applied: frozenset[int],
        locked: frozenset[int],
        duration: float,
    ) -> None:
        counts: dict[str, int] = {}
        dropped: dict[str, list[int]] = {}
        soonest = math.inf
        for one in batch:
            id = one.ack.id
            counts.setdefault(one.queue, 0)
            if id in applied:
                counts[one.queue] += 1
                if one.ack.delay is not None:
                    soonest = min(soonest, one.ack.delay)
            elif id in locked:
                self._set_apart(one, "its row is locked by another transaction", NAMED_AFTER)
                continue
            elif not one.sent:
                # An outcome that was sent before may have been applied by that first try.
                dropped.setdefault(one.queue, []).append(id)
            self._remove(one)
        for queue, count in counts.items():
            lost = tuple(dropped.get(queue, ()))
            self._emit("ack_stop", AckStop(queue, count, lost, duration))
        self._written(applied)
        if soonest < math.inf:
            self._due_in(max(0.0, soonest - duration))

    def _refused(self, one: Unwritten, error: Exception, state: str) -> None:
        if state in NOT_IN_ENCODING and one.escape():
            # It stays where it is: the next pass writes it so.
            return
        if one.failed or state.startswith(STRUCTURE):
            self._set_apart(one, f"the database refuses it: {first_line(error)}", 0.0)
            return
        self._emit("outcome_refused", OutcomeRefused(one.queue, one.ack.id, error))
        # It stays where it is: the next pass writes the failure.
        one.fail(error)

    def _set_apart(self, one: Unwritten, reason: str, named_after: float) -> None:
        one.tries += 1
        now = time.monotonic()
        one.due = now + min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(one.tries - 1, 20))
        if not one.reported and now - one.since >= named_after:
            one.reported = True
            self._emit("outcome_delayed", OutcomeDelayed(one.queue, one.ack.id, reason))
        self._waiting.pop(one, None)
        self._apart[one] = None
        self._settled.set()

    def _remove(self, one: Unwritten) -> None:
        self._waiting.pop(one, None)
        self._apart.pop(one, None)
        self._settled.set()


def _concerns_some(state: str, count: int) -> bool:
    # PostgreSQL refuses some data, and a trigger of the user's may raise any other error.
    if state == TOO_SLOW:
        return count > 1
    return bool(state) and not state.startswith(PASSING)
