"""`Stager`: promotes scheduled and retryable jobs as soon as they are due."""

import math
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from ..events import StageStop
from ..models import validation
from ..statements.move_apart import stage_move
from ..statements.stage import FRONT, Position, Staged, behind, stage
from .database import Database
from .raw_statement import RawStatement
from .refused_jobs import RefusedJobs
from .service import Emit, Service

# While more jobs are due than one pass promotes, the batch is adapted so that a pass takes about
# this many seconds. A job that becomes due meanwhile waits for the next pass.
PASS_TIME = 0.1
# The smallest batch, and the batch of the first pass.
SMALLEST_BATCH, FIRST_BATCH = 500, 1000
# Locked jobs are tried again after the first delay, which grows up to the second.
LOCKED_AGAIN, LOCKED_AGAIN_AT_MOST = 0.1, 1.0
# The most seconds from when a statement reschedules a job until the stager hears of it.
REPORT_TIME = 5.0
# The precision that an instant may lose as a float.
CLOCK_TICK = 0.001


class Stager(Service):
    """Sleeps until the next known job is due, or until it hears of an earlier job.

    Every node has a stager, for the jobs of all queues. Each stager skips jobs that another one has
    locked.

    A pass starts behind the last promoted job, or at an earlier job of which the stager has heard.
    A pass from the front reads the dead index entries of all jobs that were promoted since the
    oldest open transaction began. So a pass starts at the front only at each poll, after news may
    have been lost, and for locked jobs.
    """

    name = "stager"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        queues: Callable[[], Collection[str]],
        wake_queues: Callable[[Collection[str]], None],
        poll_interval: Callable[[], float],
        batch: int,
    ) -> None:
        """batch: the most jobs that a pass promotes.

        queues: the queues of this node. They share a pass if more jobs are due than it promotes.
        """
        super().__init__(emit)
        self._database = database
        self._refused = RefusedJobs(database, emit, stage_move)
        self._queues = queues
        self._wake_queues = wake_queues
        self._poll_interval = poll_interval
        self._largest_batch = batch
        self._batch = min(batch, FIRST_BATCH)
        self._sharing = False
        self._clock_ahead: float | None = None
        # Where the next pass starts, and the earliest job in the news since the last pass.
        self._position = FRONT
        self._expected: datetime | None = None
        # When a pass starts at the front again.
        self._front_at = -math.inf
        self._locked_again = LOCKED_AGAIN

    async def run_once(self) -> float:
        """Promote a batch of due jobs, wake their queues, and wait for the next due job."""
        started = time.monotonic()
        batch, position = self._batch, self._next_position(started)
        self._expected = None
        if position == FRONT:
            # Until the answer, only a `wake()` asks for another pass from the front.
            self._front_at = math.inf
        try:
            row = await self._stage(batch, position)
        except BaseException:
            # The time of the expected job is lost, so the next pass starts at the front.
            self._front_at = -math.inf
            raise
        # Both clocks are read at the start of the statement, so passes are early rather than late.
        self._clock_ahead = row.now - started
        queues = tuple(row.queues or ())
        self._wake_queues(queues)
        ended = time.monotonic()
        self._emit("stage_stop", StageStop(row.staged, queues, ended - started))
        if position == FRONT:
            self._front_at = min(self._front_at, ended + self._poll_interval())
        self._try_locked_again(row.skipped, position)
        self._sharing = row.first == batch
        if self._sharing:
            self._position = _end_of(row)
            self._fit_batch(ended - started)
            return 0.0
        # Before this time, only jobs that the stager hears of can still become due.
        self._position = Position(_instant(row.now - CLOCK_TICK))
        delay = self._front_at - time.monotonic()
        if row.next_in is not None:
            delay = min(delay, self._until(row.now + row.next_in))
        return max(0.0, delay)

    def wake(self) -> None:
        """Make a pass from the front now."""
        self._front_at = -math.inf
        super().wake()

    def hear(self, news: Mapping[str, Any]) -> None:
        """Hear from another process of its earliest new scheduled job."""
        try:
            due_at = validation.instant("at", datetime.fromisoformat(news["at"]))
        except (KeyError, TypeError, ValueError):
            self.wake()
        else:
            self.expect(due_at)

    def expect(self, due_at: datetime) -> None:
        """Hear of a job that is due at an instant, by the database's clock."""
        if self._clock_ahead is None:
            self.wake()
            return
        self._note(due_at)
        self.wake_in(self._until(due_at.timestamp()))

    def expect_in(self, seconds: float) -> None:
        """Hear of a job that this node has rescheduled, and that is due in `seconds`."""
        if self._clock_ahead is None:
            self.wake()
            return
        if seconds < REPORT_TIME:
            # Its time counts from the start of the statement, so a pass may already be behind it.
            now = time.monotonic() + self._clock_ahead
            self._note(_instant(now + seconds - REPORT_TIME))
        self.wake_in(seconds)

    def _note(self, due_at: datetime) -> None:
        self._expected = due_at if self._expected is None else min(self._expected, due_at)

    async def _stage(self, batch: int, position: Position) -> Staged:
        params: dict[str, Any] = {"batch": batch, **behind(position)}
        statement = self._unshared
        if self._sharing and (queues := list(self._queues())):
            share = max(1, batch // (2 * len(queues)))
            params |= {"sharing": queues, "share": share}
            statement = self._shared
        (row,) = await self._refused.passing(lambda: statement.fetch(params), {})
        return Staged(*row)

    # These statements are made when they are used: few queues ever share a pass.
    @cached_property
    def _unshared(self) -> RawStatement:
        return RawStatement(self._database, stage(prefix=self._database.prefix, shared=False))

    @cached_property
    def _shared(self) -> RawStatement:
        return RawStatement(self._database, stage(prefix=self._database.prefix, shared=True))

    def _next_position(self, now: float) -> Position:
        if now >= self._front_at:
            return FRONT
        at = self._position.scheduled_at
        if self._expected is not None and at is not None and self._expected <= at:
            return Position(self._expected)
        return self._position

    def _try_locked_again(self, skipped: bool, position: Position) -> None:
        if skipped:
            self._front_at = min(self._front_at, time.monotonic() + self._locked_again)
            self._locked_again = min(2 * self._locked_again, LOCKED_AGAIN_AT_MOST)
        elif position == FRONT:
            self._locked_again = LOCKED_AGAIN

    def _fit_batch(self, duration: float) -> None:
        if duration > PASS_TIME:
            self._batch = min(self._largest_batch, max(SMALLEST_BATCH, self._batch // 2))
        elif duration < PASS_TIME / 2:
            self._batch = min(self._largest_batch, self._batch * 2)

    def _until(self, due_at: float) -> float:
        assert self._clock_ahead is not None
        return max(0.0, due_at - self._clock_ahead - time.monotonic())


def _end_of(row: Staged) -> Position:
    assert row.last_id is not None
    return Position(None if row.last_at is None else row.last_at.replace(tzinfo=UTC), row.last_id)


def _instant(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
