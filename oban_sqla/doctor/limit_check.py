"""`LimitCheck`: find limits that nodes ignore, and limits that delay jobs for long."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from ..durations import duration
from ..runtime.database import Database
from ..runtime.presence import Presence
from .finding import Check, Result, note, problem
from .limit_queries import holders, holds, limited

HELD_LONG = 600.0
"""Seconds after which a hold is reported."""
EXECUTES_LONG = 3600.0
"""Seconds after which an executing job is reported, if others wait for its slot."""
MOST_NAMED = 10


class LimitCheck:
    """Finds limits that may be exceeded, and jobs, rates and keys that make others wait."""

    def __init__(self, database: Database, presence: Presence) -> None:
        self._database = database
        self._presence = presence
        self.check = Check(
            self._results, otherwise="every node obeys the limits, and none is stuck"
        )

    async def _results(self) -> AsyncIterator[Result]:
        for results in (self._ignoring, self._different, self._holders, self._holds):
            async for result in results():
                yield result

    async def _ignoring(self) -> AsyncIterator[Result]:
        """One problem for each node of another Oban that runs a queue with limits."""
        ignoring = [
            (node.node, queue.queue)
            for node in self._presence.nodes
            for queue in node.queues
            if queue.alive and queue.foreign
        ]
        queues = sorted({queue for _, queue in ignoring})
        rows = await self._database.fetch(limited(), {"queues": queues}) if queues else []
        found = {row.queue for row in rows}
        for node, queue in ignoring:
            if queue in found:
                yield problem(
                    f"{node} is a node of another Oban, and runs the queue {queue}: it ignores the"
                    " limits and rates of that queue and of its jobs",
                    f"stop the queue {queue} on that node, or move the limited jobs to a queue that"
                    " only nodes of oban_sqla run",
                )

    async def _different(self) -> AsyncIterator[Result]:
        """One problem for each queue whose nodes do not agree on a limit over all nodes."""
        for name, queues in sorted(self._presence.run.items()):
            for kind in ("global_limit", "rate_limit"):
                given = {_terms(getattr(queue, kind)) for queue in queues if not queue.foreign}
                if len(given) > 1:
                    yield problem(
                        f"the nodes that run the queue {name} have different values of {kind}:"
                        f" {', '.join(sorted(given))}; each obeys its own",
                        f"configure all nodes alike, or set it with oban-sqla queues scale {name}",
                    )

    async def _holders(self) -> AsyncIterator[Result]:
        """One note for each job that has long held a slot for which others wait."""
        run = self._presence.run
        queues = [name for name, nodes in run.items() if any(one.global_limit for one in nodes)]
        alive = {one.uuid for nodes in run.values() for one in nodes}
        statement = holders(EXECUTES_LONG, MOST_NAMED)
        for row in await self._database.fetch(statement, {"queues": queues}):
            gone = "" if row.producer in alive else ", and its node is gone"
            yield note(
                f"job {row.id} of queue {row.queue} executes for {duration(row.executes)}{gone};"
                " under a limit, other jobs wait for its slot",
                f"if it hangs, oban-sqla jobs cancel {row.id}, and give its worker a timeout; a"
                " leader rescues the jobs of a node that is gone",
            )

    async def _holds(self) -> AsyncIterator[Result]:
        """One note for the rates and keys of a name that stay held for long."""
        for row in await self._database.fetch(holds(HELD_LONG)):
            counted = f"{row.count} keys of {row.name} are" if row.count > 1 else f"{row.name} is"
            yield note(
                f"{counted} held for {duration(row.left)} more, since a job raised RateLimited",
                f"wait, or release a rate: await oban.rate({row.name!r}).reset()",
            )


def _terms(limit: Mapping[str, Any] | None) -> str:
    """A limit as text, without the counts of its windows."""
    terms = {name: value for name, value in (limit or {}).items() if name != "windows"}
    return json.dumps(terms, sort_keys=True) if terms else "none"
