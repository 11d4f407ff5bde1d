"""The producer: the loop of one queue on one node. It claims jobs, runs them, acknowledges them."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID, uuid4

from ..events import AckStop, ClaimStop, GiveBackStop, QueuePaused, QueueResumed
from ..models import Job, JobState
from ..statements.acknowledge import Ack, outcomes
from ..statements.claim import acknowledge_and_claim, claim_of_queue, claimed
from ..statements.give_back import give_back
from .database import FAREWELL, Database, deadline
from .executor import Executor
from .prepared import Prepared
from .service import GRACE, UNWINDING, Emit, Service
from .transaction import Written

# How many outcomes one statement takes.
ACK_BATCH = 1000
# A server that lost its client may still finish the claim it was sent: look again for so long.
DOUBT = 60.0
# How often to look without a reason: nobody rescues what a living producer does not know of.
LOOK_INTERVAL = 600.0
# How often a stop tries: the pool may hold connections that were cut while nobody used them, which
# the second failure, that of the engine's own statement, has it let go of.
FAREWELL_TRIES = 3
# Until the next attempt of a job whose outcome could not be stored.
REFUSED = 60.0
# By SQLSTATE: data that is not valid, breaks a constraint, is beyond a limit of the server, or that
# a trigger of the user's raises at.
REFUSALS = ("22", "23", "54", "P0")


class Producer(Service):
    """Keeps up to `limit` jobs of a queue running.

    A pass writes the outcomes of the jobs that ended and claims as many new ones, in one statement.
    The statement is fenced, so it may be repeated when its answer got lost.
    """

    name = "producer"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        executor: Executor,
        *,
        queue: str,
        limit: int,
        paused: bool,
        node: str,
        poll_interval: Callable[[], float],
        due_in: Callable[[float], None],
        written: Callable[[Iterable[int]], None],
    ) -> None:
        super().__init__(emit)
        self.queue = queue
        self.limit = limit
        self.paused = paused
        self.uuid: UUID = uuid4()
        self._database = database
        self._acknowledging = Prepared(database, acknowledge_and_claim(), in_turn=False)
        self._claim = Prepared(database, claim_of_queue())
        self._executor = executor
        self._node = node
        self._poll_interval = poll_interval
        self._due_in = due_in
        self._written = written
        # By their tasks: a job that somebody else gave back may run here a second time at once.
        self._running: dict[asyncio.Task[Ack | Written | None], int] = {}
        self._acks: list[Ack] = []
        # Outcomes that were sent once without an answer: being dropped does not tell anything.
        self._sent_before = 0
        # How many outcomes to write one by one, since the database refuses one of them.
        self._singly = 0
        # When a claim whose answer was lost can't come to light any more.
        self._doubtful_until = -math.inf
        self._looked_at = time.monotonic()
        # Whether there may be jobs in the database that are ours.
        self._claiming = False
        self._draining = False
        self._abandoning = False

    @property
    def label(self) -> str:
        return f"producer {self.queue}"

    @property
    def meta(self) -> dict[str, Any]:
        """What the other nodes are told of it, in its row."""
        return {"local_limit": self.limit, "paused": self.paused}

    @property
    def stopping(self) -> bool:
        """Whether a stop began, even one that was cancelled."""
        return self._draining

    @property
    def running(self) -> list[int]:
        """The ids of the jobs that are being processed."""
        return list(self._running.values())

    async def start(self) -> None:
        """Start claiming, under a new uuid if it was stopped before."""
        if self._draining:
            self.uuid = uuid4()
        self._draining = self._abandoning = False
        await super().start()

    async def stop(self, grace: float | None = None) -> None:
        """Claim no more, wait for the running jobs for `grace` seconds, and give back the rest."""
        self._draining = True
        await self._wait_for_jobs(GRACE if grace is None else grace)
        await super().stop()

    def pause(self) -> None:
        """Claim no more; what runs goes on."""
        if not self.paused:
            self.paused = True
            self._emit("queue_paused", QueuePaused(self.queue))

    def resume(self) -> None:
        """Claim again."""
        if self.paused:
            self.paused = False
            self._emit("queue_resumed", QueueResumed(self.queue))
            self.wake()

    def scale(self, limit: int) -> None:
        """Run so many jobs at once; when there are more, they end first."""
        self.limit = limit
        self.wake()

    async def run_once(self) -> float:
        """Acknowledge and claim; then wait for a job to end, or to be woken."""
        if self._in_doubt() or self._has_not_looked():
            await self._give_back_lost()
        idle = self.paused or self._draining
        demand = 0 if idle else max(0, self.limit - len(self._running))
        acks = self._next_acks()
        if not acks and not demand:
            return self._pause_of_doubt()
        jobs = await self._acknowledge_and_claim(acks, demand)
        if self._draining and jobs:
            # The stop came while the claim was under way.
            await self._give_back_lost()
            return 0.0
        executing = [job for job in jobs if job.state is JobState.EXECUTING]
        for job in executing:
            self._run(job)
        if executing:
            # They begin first, before what it takes to send the next statement.
            await asyncio.sleep(0)
        more = bool(self._acks) or len(executing) < len(jobs)
        return 0.0 if more else self._poll_interval()

    async def close(self) -> None:
        """Write the last outcomes, and give back what is still claimed, if the database answers."""
        if not self._claiming:
            return
        async with deadline(FAREWELL):
            failures = 0
            while self._claiming:
                try:
                    while self._acks:
                        await self._acknowledge_and_claim(self._next_acks(), 0)
                    await self._give_back_lost()
                    self._claiming = False
                except Exception as error:
                    # What is refused is set apart, for the others to be written.
                    failures += not _is_refusal(error)
                    if failures == FAREWELL_TRIES:
                        raise

    async def _acknowledge_and_claim(self, acks: Sequence[Ack], demand: int) -> list[Job]:
        started = time.monotonic()
        self._claiming = self._claiming or demand > 0
        claim = {
            "queue_name": self.queue,
            "limit": demand,
            "node_name": self._node,
            "producer": str(self.uuid),
        }
        try:
            if acks:
                rows = await self._acknowledging.fetch({**outcomes(acks), **claim})
            else:
                rows = await self._claim.fetch(claim)
        except BaseException as error:
            if acks and _is_refusal(error):
                self._set_apart(acks)
            # It may have been carried out: what it claimed for us has to be found again.
            if demand:
                self._doubtful_until = math.inf
            self._sent_before = max(self._sent_before, len(acks))
            raise
        duration = time.monotonic() - started
        del self._acks[: len(acks)]
        self._singly = max(0, self._singly - len(acks))
        if acks:
            applied = set(rows[0][0] or ())
            dropped = [ack.id for ack in acks[self._sent_before :] if ack.id not in applied]
            self._sent_before = max(0, self._sent_before - len(acks))
            self._emit("ack_stop", AckStop(self.queue, len(applied), tuple(dropped), duration))
            self._written(applied)
            if delays := [ack.delay for ack in acks if ack.delay is not None]:
                self._due_in(max(0.0, min(delays) - duration))
        jobs = claimed(rows)
        if demand:
            discarded = tuple(job.id for job in jobs if job.state is not JobState.EXECUTING)
            count = len(jobs) - len(discarded)
            self._emit("claim_stop", ClaimStop(self.queue, count, discarded, duration))
        return jobs

    def _next_acks(self) -> list[Ack]:
        return self._acks[: 1 if self._singly else ACK_BATCH]

    def _set_apart(self, acks: Sequence[Ack]) -> None:
        # An outcome that can't be stored, an immense one for example, must not hold up the others.
        if len(acks) > 1:
            self._singly = len(acks)
        else:
            error = "the outcome was refused by the database, so the attempt failed"
            self._acks[0] = acks[0]._replace(
                state=JobState.RETRYABLE, delay=REFUSED, spent=True, error=error, meta=None
            )

    def _run(self, job: Job) -> None:
        execution = self._executor.execute(job, self._is_abandoning)
        task = asyncio.create_task(execution, name=f"oban-job-{job.id}")
        self._running[task] = job.id
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Ack | Written | None]) -> None:
        # A callback, which is also called when the task was cancelled before its first step.
        del self._running[task]
        match None if task.cancelled() else task.result():
            case Ack() as ack:
                self._acks.append(ack)
            case Written(ack=ack, applied=applied, duration=duration):
                dropped = () if applied else (ack.id,)
                self._emit("ack_stop", AckStop(self.queue, int(applied), dropped, duration))
                if applied:
                    self._written([ack.id])
                if applied and ack.delay is not None:
                    self._due_in(ack.delay)
        self.wake()

    def _is_abandoning(self) -> bool:
        return self._abandoning

    def _in_doubt(self) -> bool:
        return time.monotonic() < self._doubtful_until

    def _has_not_looked(self) -> bool:
        return self._claiming and time.monotonic() - self._looked_at > LOOK_INTERVAL

    def _pause_of_doubt(self) -> float:
        return self._poll_interval() if self._in_doubt() else math.inf

    async def _give_back_lost(self) -> None:
        """Give back what was claimed under our uuid without our knowledge, or left unfinished."""
        known = [ack.id for ack in self._acks]
        if not self._abandoning:
            known += self._running.values()
        rows = await self._database.fetch(
            give_back(prefix=self._database.prefix),
            {"queue_name": self.queue, "producer": str(self.uuid), "running": known},
        )
        self._looked_at = time.monotonic()
        # Only now, after an outage of whatever length, does the server answer again.
        self._doubtful_until = min(self._doubtful_until, self._looked_at + DOUBT)
        if rows:
            ids = tuple(row.id for row in rows)
            self._emit("give_back_stop", GiveBackStop(self.queue, ids))

    async def _wait_for_jobs(self, grace: float) -> None:
        # The loop goes on meanwhile, so that each outcome is written as soon as it is there.
        if self._running:
            await asyncio.wait(list(self._running), timeout=grace)
        self._abandoning = True
        if left := list(self._running):
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=UNWINDING)


def _is_refusal(error: BaseException) -> bool:
    found = getattr(getattr(error, "orig", error), "sqlstate", None)
    return str(found).startswith(REFUSALS)
