"""`Producer`: the loop of one queue on one node, which claims jobs and runs them."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

from ..events import ClaimStop, GiveBackStop, QueuePaused, QueueResumed
from ..models import JobState
from ..statements.acknowledge import Ack
from ..statements.claimed import Claimed
from ..statements.heartbeat import DELAYED, LEFT_BEHIND, REFUSED
from .claim_ahead import ClaimAhead
from .claim_sender import CLAIM_BATCH, ClaimSender
from .claiming import WayToClaim
from .database import Database
from .executor import Executor
from .held_jobs import HeldJobs
from .last_write import write_last
from .lost_claims import LostClaims
from .outbox import Outbox
from .running_jobs import Outcome, RunningJobs
from .service import GRACE, Emit, Service
from .time_limits import STOP_TIMEOUT, deadline
from .vitals import QueueVitals
from .worker_session import Written

# Seconds for which held jobs are started before the event loop gets a turn.
TURN = 0.002


class Producer(Service):
    """Keeps up to `limit` jobs of a queue running.

    A pass claims as many jobs as can run or be held. When a job ends, its outcome goes into the
    outbox, and the next held job starts.
    """

    name = "producer"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        executor: Executor,
        outbox: Outbox,
        *,
        queue: str,
        limit: int,
        paused: bool,
        claim_ahead: float,
        way: WayToClaim,
        claims: asyncio.Semaphore,
        poll_interval: Callable[[], float],
    ) -> None:
        super().__init__(emit)
        self.queue = queue
        self.limit = limit
        self.paused = paused
        self.uuid: UUID = uuid4()
        self._way = way
        self._executor = executor
        self._outbox = outbox
        self._poll_interval = poll_interval
        self._running = RunningJobs(executor, self._ended, self._start_held)
        # Whether the next turn of the event loop starts held jobs.
        self._continuing = False
        self._ahead = ClaimAhead(claim_ahead)
        self._held = HeldJobs(self._ahead.longest_hold)
        # Whether the last claim found all available jobs, and no news has come since.
        self._exhausted = False
        self._lost = LostClaims(database, emit, queue)
        self._claims = ClaimSender(database, emit, way, self._lost, claims, queue=queue)
        self._draining = False

    @property
    def label(self) -> str:
        return f"producer {self.queue}"

    @property
    def meta(self) -> dict[str, Any]:
        """Data for other nodes, stored in the row of the producer."""
        meta = {"local_limit": self.limit, "paused": self.paused, **self._way.meta}
        if delayed := self._outbox.delayed(self.queue):
            meta[DELAYED] = delayed
        if left_behind := self._executor.left_behind.ids(self.queue):
            meta[LEFT_BEHIND] = left_behind
        if refused := self._claims.refused:
            meta[REFUSED] = refused
        return meta

    @property
    def stopping(self) -> bool:
        """Whether a stop has begun, even if it was cancelled."""
        return self._draining

    @property
    def running(self) -> list[int]:
        """The ids of the running jobs."""
        return self._running.ids

    @property
    def held(self) -> list[int]:
        """The ids of the claimed jobs that have not started."""
        return self._held.ids

    @property
    def vitals(self) -> QueueVitals:
        """The state of the queue. Any thread may read it, so nothing is iterated here."""
        running, held = len(self._running), len(self._held)
        return QueueVitals(self.queue, self.limit, running, held, self.paused)

    async def start(self) -> None:
        """Start claiming. After a stop, the producer has a new uuid."""
        if self._draining:
            self.uuid = uuid4()
        self._draining = self._running.abandoned = False
        await super().start()

    async def stop(self, grace: float | None = None) -> None:
        """Stop claiming, wait `grace` seconds for running jobs, and give back the other jobs."""
        self._draining = True
        self._return_held()
        # The outbox still runs, so each outcome is written as soon as its job ends.
        await self._running.wait(GRACE if grace is None else grace)
        await self._outbox.settle(self.queue, STOP_TIMEOUT)
        await super().stop()

    def wake(self) -> None:
        """Claim now, since there may be new jobs."""
        self._exhausted = False
        self._way.news()
        super().wake()

    def pause(self) -> None:
        """Stop claiming, and give back the held jobs. Running jobs go on."""
        if not self.paused:
            self.paused = True
            self._return_held()
            self._emit("queue_paused", QueuePaused(self.queue))

    def resume(self) -> None:
        """Begin to claim again."""
        if self.paused:
            self.paused = False
            self._emit("queue_resumed", QueueResumed(self.queue))
            self.wake()

    def freed(self, *, here: bool = False) -> None:
        """Claim now if a limit delays jobs, since jobs ended. `here`: jobs of this producer."""
        if self._way.frees(here=here):
            self.wake()
        elif (seconds := self._way.tell_in) < math.inf:
            self.wake_in(seconds)

    def change_limits(self, changes: Mapping[str, Any]) -> None:
        """Change the limits of the queue over all nodes."""
        if self._way.change_limits(changes):
            self.wake()

    def scale(self, limit: int) -> None:
        """Set the limit. If more jobs are running, they go on until they end."""
        if limit < self.limit:
            self._return_held()
        self.limit = limit
        self.wake()

    def cancel(self, id: int) -> None:
        """Give back a held job that was cancelled."""
        if self._held.give_up(id):
            super().wake()

    async def run_once(self) -> float:
        """Give back jobs that must not start here, and claim as many as can run or be held."""
        await self._way.write_holds()
        if self._held.expires_in <= 0:
            # The running jobs take longer than earlier jobs did, so the held jobs go back.
            self._return_held()
        if self._held.returning or self._lost.is_due:
            await self._give_back_lost()
        if demand := self._demand():
            delay = await self._claim(demand)
        else:
            delay = self._poll_interval() if self._lost.in_doubt else math.inf
        # Told after the claim, which may have used the slots of jobs that ended here.
        await self._way.tell()
        return max(0.0, min(delay, self._held.expires_in, self._way.tell_in))

    async def close(self) -> None:
        """Give back the claimed jobs, if the database answers."""
        self._return_held()
        async with deadline(STOP_TIMEOUT):
            if self._lost.possible and self._lost.unaccounted:
                await write_last(self._give_back_lost)
            self._lost.possible, self._lost.unaccounted = False, 0.0
            while (seconds := self._way.tell_in) < math.inf:
                await asyncio.sleep(seconds)
                await self._way.tell()

    @property
    def _free(self) -> int:
        """The number of further jobs that may run."""
        return self.limit - len(self._running) - self._executor.left_behind.count(self.queue)

    def _demand(self) -> int:
        """The number of jobs to claim now."""
        if self.paused or self._draining or self._outbox.full:
            return 0
        ahead, held = self._ahead.allowance if self._way.may_claim_ahead else 0, len(self._held)
        if held > ahead // 2:
            # A claim is expensive, so the next one waits until half of the held jobs have started.
            return 0
        return min(CLAIM_BATCH, max(0, self._free) + ahead - held)

    async def _claim(self, demand: int) -> float:
        claim = await self._claims.send(demand, str(self.uuid))
        self._ahead.claim_ended(full=claim.full)
        wanted = [job for job in claim.jobs if job.state is JobState.EXECUTING]
        self._lost.unaccounted += len(wanted) + len(claim.unwanted)
        discarded = tuple(job.id for job in claim.jobs if job.state is not JobState.EXECUTING)
        stop = ClaimStop(self.queue, len(wanted), discarded, claim.duration)
        self._emit("claim_stop", stop)
        self._held.add(wanted)
        self._held.returning.update(claim.unwanted)
        if self.paused or self._draining:
            # The order to pause or stop came during the claim.
            self._return_held()
            return 0.0
        # Set before the jobs start, since a job that ends in its first step may wake the queue.
        self._exhausted = claim.exhausted and not self._woken.is_set()
        self._start_held()
        if claim.jobs:
            # Lets the jobs begin before the next statement is sent.
            await asyncio.sleep(0)
        if claim.unwanted or (not self._exhausted and self._demand()):
            return 0.0
        return min(self._poll_interval(), claim.again_in)

    def _start_held(self) -> None:
        """Start held jobs while slots are free, also those of jobs that end in their first step.

        After `TURN` seconds, the event loop gets a turn before the next job.
        """
        if self._continuing:
            return
        until = time.monotonic() + TURN
        while self._held and self._free > 0 and not (self.paused or self._draining):
            if self._running.start(*self._held.next()) > until:
                self._continuing = True
                asyncio.get_running_loop().call_soon(self._continue)
                break
        if not self._exhausted and self._demand():
            super().wake()

    def _continue(self) -> None:
        self._continuing = False
        self._start_held()

    def _ended(self, claimed: Claimed, outcome: Outcome, started: float, now: float) -> None:
        if outcome is not None:
            self._lost.unaccounted -= 1
        match outcome:
            case Ack() as ack:
                last = claimed.attempt >= claimed.max_attempts
                self._outbox.put(ack, self.queue, last=last)
                if ack.holds is not None:
                    self._way.hold(claimed, ack.holds)
                    super().wake()
            case Written() as written:
                self._outbox.note(written, self.queue)
        self._ahead.job_ended(started, now)

    def _return_held(self) -> None:
        """Let the next pass give back all held jobs."""
        if self._held.give_up():
            super().wake()

    async def _give_back_lost(self) -> None:
        """Give back jobs under this uuid that do not run, are not held, and have not ended."""
        known = [*self._outbox.ids(self.queue), *self.held]
        if not self._running.abandoned:
            known += self.running
        returning = set(self._held.returning)
        ids = await self._lost.give_back(str(self.uuid), known, returning)
        self._held.returning -= returning
        if ids:
            held = tuple(id for id in ids if id in returning)
            self._emit("give_back_stop", GiveBackStop(self.queue, ids, held))
            await self._way.gave_back(ids)
