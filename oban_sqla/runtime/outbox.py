"""`Outbox`: writes the outcomes of all queues of a node."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import islice

from sqlalchemy import Executable

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
from .followed_outcomes import FollowedOutcomes
from .last_write import write_last
from .raw_statement import RawStatement
from .refusals import concerns_encoding, concerns_some, concerns_structure
from .service import Emit, Service
from .time_limits import STOP_TIMEOUT, deadline
from .unwritten import Unwritten, first_line
from .worker_session import Written

BATCH = 1000
"""The most outcomes of one statement."""
FULL = 5000
"""If this many outcomes wait, the producers claim no more jobs."""
FIRST_DELAY, LONGEST_DELAY = 0.05, 30.0
"""The first and the longest delay, in seconds, until an outcome is tried again by itself."""
NAMED_AFTER = 1.0
"""Seconds after which an outcome that waits for a lock is reported."""


class Outbox(Service):
    """Writes outcomes as soon as the last write has ended, up to `BATCH` in one statement.

    The statement is fenced, so it may be repeated if its answer is lost. If a job is locked, or the
    database refuses its outcome, the outcome is set apart and tried again by itself, so that no
    other outcome has to wait.
    """

    name = "outbox"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        due_in: Callable[[float], None],
        written: Callable[[Iterable[int], Iterable[str]], None],
        freed: Callable[[], None],
    ) -> None:
        """Callbacks report the delays of retries (`due_in`), the ids of jobs whose outcomes were
        written and their queues (`written`), and that the outbox is not `full` any more (`freed`).
        """
        super().__init__(emit)
        self._database = database
        self._followed = FollowedOutcomes(database, emit, written)
        self._due_in = due_in
        self._written = written
        self._freed = freed
        self._waiting: dict[Unwritten, None] = {}
        self._apart: dict[Unwritten, None] = {}
        self._settled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._apart)

    @property
    def full(self) -> bool:
        """Whether too many outcomes wait, so that the producers must not claim more jobs."""
        return len(self) >= FULL

    def put(self, ack: Ack, queue: str, *, last: bool) -> None:
        """Add an outcome to write. `last`: it belongs to the last attempt of its job."""
        self._waiting[Unwritten(ack, queue, last)] = None
        self.wake()

    def note(self, written: Written, queue: str) -> None:
        """Report an outcome that a worker's own transaction has written."""
        ack, applied = written.ack, written.applied
        dropped = () if applied else (ack.id,)
        self._emit("ack_stop", AckStop(queue, int(applied), dropped, written.duration))
        if applied:
            self._written([ack.id], [queue])
            self._followed.tell(written.followed)
            if written.followed.late:
                self.wake()
            if ack.delay is not None:
                self._due_in(ack.delay)

    def ids(self, queue: str) -> list[int]:
        """The ids of the jobs of a queue whose outcomes wait."""
        return [one.ack.id for one in (*self._waiting, *self._apart) if one.queue == queue]

    def delayed(self, queue: str) -> list[int]:
        """The ids of the jobs of a queue whose outcomes were reported as delayed."""
        return [one.ack.id for one in self._apart if one.reported and one.queue == queue]

    async def run_once(self) -> float:
        """Write the waiting outcomes, and try due outcomes again that were set apart."""
        was_full = self.full
        if batch := list(islice(self._waiting, BATCH)):
            await self._write_parts(batch)
        now = time.monotonic()
        if due := [one for one in self._apart if one.due <= now][:BATCH]:
            await self._write_parts(due)
        if self._followed.due <= now:
            await self._followed.follow_late()
        if was_full and not self.full:
            self._freed()
        if self._waiting:
            return 0.0
        soonest = min((one.due for one in self._apart), default=math.inf)
        return max(0.0, min(soonest, self._followed.due) - now)

    async def settle(self, queue: str, seconds: float) -> None:
        """Wait until no outcome of a queue waits to be written, for at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while any(one.queue == queue for one in self._waiting):
                    self._settled.clear()
                    await self._settled.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        """Write all outcomes. If an outcome can't be written, its job will be rescued."""
        self._followed.hurry()
        if self._waiting or self._apart or self._followed.due < math.inf:
            for one in self._apart:
                one.due = 0.0
            async with deadline(STOP_TIMEOUT):
                await write_last(self._write_all)

    async def _write_all(self) -> None:
        while await self.run_once() == 0.0:
            pass

    async def _write_parts(self, batch: Sequence[Unwritten]) -> None:
        """Write outcomes. Followed outcomes are separate, in a transaction with their effects."""
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
            if not concerns_some(state, len(batch)):
                raise
            if len(batch) == 1:
                self._refused(batch[0], error, state)
                return
            # Find the refused outcome by halving the batch.
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
                applied = await self._followed.write(self._acknowledge(discards), params)
                if applied is not None:
                    return applied
                # An error of the feature must not prevent the outcome. The leader repairs the rest
                # later, or reports why it can't.
            statement = self._with_discards if discards else self._without_discards
            rows = await statement.fetch(params)
        except BaseException:
            for one in batch:
                one.sent = True
            raise
        return frozenset(row[0] for row in rows)

    # These statements are made when they are used: most nodes discard no job.
    @cached_property
    def _without_discards(self) -> RawStatement:
        return RawStatement(self._database, self._acknowledge(discards=False), at_once=True)

    @cached_property
    def _with_discards(self) -> RawStatement:
        return RawStatement(self._database, self._acknowledge(discards=True), at_once=True)

    def _acknowledge(self, discards: bool) -> Executable:
        if discards:
            return acknowledge_discards(prefix=self._database.prefix, skip_locked=True)
        return acknowledge(skip_locked=True)

    async def _locked(self, missing: Sequence[Unwritten]) -> frozenset[int]:
        """The ids of outcomes that did not apply because another transaction locks their jobs."""
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
                # If the outcome was sent before, the first try may have applied it.
                dropped.setdefault(one.queue, []).append(id)
            self._remove(one)
        for queue, count in counts.items():
            lost = tuple(dropped.get(queue, ()))
            self._emit("ack_stop", AckStop(queue, count, lost, duration))
        self._written(applied, [queue for queue, count in counts.items() if count])
        if soonest < math.inf:
            self._due_in(max(0.0, soonest - duration))

    def _refused(self, one: Unwritten, error: Exception, state: str) -> None:
        if concerns_encoding(state) and one.escape():
            # The outcome stays in the queue, and the next pass writes it escaped.
            return
        if one.failed or concerns_structure(state):
            self._set_apart(one, f"the database refuses it: {first_line(error)}", 0.0)
            return
        self._emit("outcome_refused", OutcomeRefused(one.queue, one.ack.id, error))
        # The outcome stays in the queue, and the next pass writes the failure.
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
