"""`WorkflowKeeper`: repairs workflows whose steps were finished without following them."""

import math
import time
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Integer, Select, Text, bindparam, cast, exists, or_, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import aliased

from .. import wakeups
from ..models import Job, JobState
from ..models.state import FINISHED
from ..runtime.database import Database
from ..runtime.following import Followed, InTransaction, follow_by, run_by
from ..runtime.service import Emit, Service
from ..runtime.time_limits import ANSWER_TIMEOUT, deadline
from .chain_follower import advance
from .chains import idle_chains, in_chain
from .counts import recount
from .step import Step
from .uncounted_steps import has_workflow

INTERVAL = 1.0
"""The least seconds between two passes."""
LONGEST_INTERVAL = 15.0
"""The most seconds between two passes, which are rarer while they find nothing to repair."""
IDLE_INTERVAL = 60.0
"""Seconds between two passes while no step and no job of a chain waits."""
NEWS_DELAY = 5.0
"""Seconds from news of jobs to a pass, if nothing waited before."""
RECOUNT_INTERVAL = 5.0
"""Seconds between two counts of the jobs of workflows, at least."""
# A pass takes at most this share of the time.
SHARE = 0.05
# The most steps that one transaction repairs.
BATCH = 1000


@lru_cache(maxsize=1)
def is_any_open() -> Select[bool]:
    """Whether a step has not ended, or a job of a chain waits."""
    job = aliased(Job, name="waiting")
    step = select(Step.job_id).where(Step.ended.is_(None)).limit(1)
    waiting = cast(job.state, Text) == JobState.SUSPENDED.value
    return select(or_(exists(step), exists().where(in_chain(job), waiting)))


@lru_cache(maxsize=1)
def uncounted() -> Select[int]:
    """The jobs of steps that have not `ended`, although the jobs are finished or gone.

    The first `most` jobs after the id `after`. Steps without their workflow are left out.
    """
    finished = cast(Job.state, Text).in_([state.value for state in FINISHED])
    return (
        select(Step.job_id)
        .outerjoin(Job, Job.id == Step.job_id)
        .where(
            Step.ended.is_(None),
            Step.job_id > bindparam("after", type_=BigInteger),
            or_(Job.id.is_(None), finished),
            has_workflow(Step),
        )
        .order_by(Step.job_id)
        .limit(bindparam("most", type_=Integer))
    )


class WorkflowKeeper(Service):
    """Releases steps whose deps have ended without releasing them, on the leader.

    Nodes of another Oban, and users with an UPDATE or a DELETE, finish jobs without releasing other
    steps. A node may also die before it has released steps that were locked. While there are nodes
    of another Oban, one of them may lead, so all nodes make passes, once a second.
    """

    name = "workflow keeper"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        is_leader: Callable[[], bool],
        has_foreign_nodes: Callable[[], bool],
        announce: Callable[[Collection[int]], None],
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._is_leader = is_leader
        self._has_foreign_nodes = has_foreign_nodes
        self._announce = announce
        self._recount_at = 0.0
        self._interval = INTERVAL
        self._idle = False
        # A pass begins after the jobs of the last one, so that locked workflows delay no others.
        self._after = 0

    def news(self) -> None:
        """Make a pass soon, since new jobs may be steps."""
        if self._idle:
            self._idle = False
            self.wake_in(INTERVAL if self._has_foreign_nodes() else NEWS_DELAY)

    async def run_once(self) -> float:
        """Find ended steps that nothing followed, and release the steps that wait for them."""
        has_foreign_nodes = self._has_foreign_nodes()
        if not (has_foreign_nodes or self._is_leader()):
            return math.inf
        started = time.monotonic()
        ((is_open,),) = await self._database.fetch(is_any_open())
        self._idle = not is_open
        if self._idle:
            self._interval = INTERVAL
            return IDLE_INTERVAL
        params = {"after": self._after, "most": BATCH}
        ids = [id for (id,) in await self._database.fetch(uncounted(), params)]
        is_full = len(ids) == BATCH
        self._after = ids[-1] if is_full else 0
        failures: list[DBAPIError] = []
        late = await self._release(ids, failures) if ids else False
        if failures:
            raise failures[0]
        if is_full or (ids and not late):
            return 0.0
        if idle := await self._database.fetch(idle_chains()):
            await self._advance(idle)
        repaired = bool(ids or idle)
        longest = INTERVAL if has_foreign_nodes else LONGEST_INTERVAL
        self._interval = INTERVAL if repaired else min(2 * self._interval, longest)
        if started >= self._recount_at:
            began = time.monotonic()
            await self._database.fetch(recount())
            took = time.monotonic() - began
            self._recount_at = began + max(RECOUNT_INTERVAL, took / SHARE)
            started += took
        return max(self._interval, (time.monotonic() - started) / SHARE)

    async def _release(self, ids: list[int], failures: list[DBAPIError]) -> bool:
        """Release the steps that wait for jobs. Returns whether locked ones are left.

        If the server refuses to release them, the halves are tried, so that one job stops no other.
        """
        database = self._database
        try:
            async with deadline(ANSWER_TIMEOUT), database.transaction() as connection:
                followed = await follow_by(InTransaction(connection), ids, database.prefix)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            if len(ids) == 1:
                failures.append(error)
                return True
            half = len(ids) // 2
            late = [await self._release(part, failures) for part in (ids[:half], ids[half:])]
            return any(late)
        self._tell(followed)
        self._announce(ids)
        return bool(followed.late)

    async def _advance(self, idle: Sequence[Any]) -> None:
        database = self._database
        chains = {row.chain for row in idle}
        discarded = {row.ended_by for row in idle} - {None}
        async with deadline(ANSWER_TIMEOUT), database.transaction() as connection:
            statements = advance(
                [*chains], [*discarded], table=idle[0].table, wait=False, prefix=database.prefix
            )
            followed = await run_by(InTransaction(connection), statements)
        self._tell(followed)

    def _tell(self, followed: Followed) -> None:
        database = self._database
        wakeups.publish(database.address, database.prefix, followed.wakeup)
        self._announce(followed.ended)
        for name, event in followed.events:
            self._emit(name, event)
