"""`LimitCheck`: find nodes of another Oban that run queues with limits, which they ignore."""

from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import Executable, Text, bindparam, exists, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from ..models import Job, JobState, ProducerRow
from ..models.unique import COUNTED_BY
from ..runtime.database import Database
from ..runtime.presence import Presence
from ..statements.heartbeat import EXPIRY
from ..statements.states import state_in
from .finding import Check, Result, problem

OF_QUEUES = ("global_limit", "rate_limit")


class LimitCheck:
    """Finds queues whose limits may be exceeded."""

    def __init__(self, database: Database, presence: Presence) -> None:
        self._database = database
        self._presence = presence
        self.check = Check(self._look, otherwise="no node of another Oban runs a queue with limits")

    async def _look(self) -> AsyncIterator[Result]:
        """One problem for each node of another Oban that runs a queue with limits."""
        ignoring = [
            (node.node, queue.queue)
            for node in self._presence.nodes
            for queue in node.queues
            if queue.alive and queue.foreign
        ]
        queues = sorted({queue for _, queue in ignoring})
        rows = await self._database.fetch(_limited(), {"queues": queues}) if queues else []
        limited = {row.queue for row in rows}
        for node, queue in ignoring:
            if queue in limited:
                yield problem(
                    f"{node} is a node of another Oban, and runs the queue {queue}: it ignores the"
                    " limits and rates of that queue and of its jobs",
                    f"stop the queue {queue} on that node, or move the limited jobs to a queue that"
                    " only nodes of oban_sqla run",
                )


def _limited() -> Executable:
    """The names in `queues` of the queues that have limits, or jobs with limits."""
    given = (
        func.unnest(bindparam("queues", type_=ARRAY(Text)))
        .table_valued("queue")
        .render_derived(name="given")
    )

    def has_jobs(state: JobState) -> Any:
        counted = (Job.meta.has_key(entry) for entry in COUNTED_BY)
        return exists().where(state_in(state), Job.queue == given.c.queue, *counted)

    # Each state by itself, so that the index of waiting limited jobs serves one of them.
    of_jobs = or_(has_jobs(JobState.AVAILABLE), has_jobs(JobState.EXECUTING))
    of_queue = exists().where(
        ProducerRow.queue == given.c.queue,
        # Oban Pro publishes limits in the same form, and obeys its own.
        ProducerRow.meta.has_key(EXPIRY),
        or_(*(ProducerRow.meta.has_key(name) for name in OF_QUEUES)),
    )
    return select(given.c.queue).where(or_(of_queue, of_jobs))
