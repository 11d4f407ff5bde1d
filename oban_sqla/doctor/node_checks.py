"""Checks of the nodes: whether they are alive, have a leader, and run all queues with jobs."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from ..durations import ago, duration
from ..instances import DEFAULT_NAME
from ..models import JobState
from ..runtime.database import Database
from ..runtime.presence import Presence
from . import queries
from .finding import Check, Result, note, ok, problem

# Seconds after which a pause counts as forgotten.
FORGOTTEN_AFTER = 86400.0
# The most malformed jobs that are counted.
MALFORMED = 1000


class NodeChecks:
    """Checks of the nodes, from the rows in the tables."""

    def __init__(
        self, database: Database, presence: Presence, jobs: Sequence[Any], rescue_after: float
    ) -> None:
        """`jobs` are the rows of `statements.counts.counts`."""
        self._database = database
        self._presence = presence
        self._counts = jobs
        self._rescue_after = rescue_after
        self.all: Mapping[str, Check] = {
            "nodes": Check(self._nodes),
            "leader": Check(self._leader),
            "orphans": Check(self._orphans, otherwise="the nodes of all executing jobs are alive"),
            "queues": Check(
                self._queues, otherwise="a node runs each queue that has available jobs"
            ),
            "jobs": Check(self._jobs, otherwise="every job is well-formed"),
            "threads": Check(
                self._threads, otherwise="no thread or task still runs after its job has ended"
            ),
            "pauses": Check(self._pauses, otherwise="no pause is forgotten"),
            "pools": Check(self._pools, otherwise="every pool is large enough"),
            "outcomes": Check(self._outcomes, otherwise="every outcome is written"),
        }

    async def _nodes(self) -> AsyncIterator[Result]:
        alive = [node for node in self._presence.nodes if node.alive]
        for node in self._presence.nodes:
            if not node.alive:
                yield problem(
                    f"{node.node} has sent no heartbeat for {duration(node.silent_for)}",
                    "check whether the node still runs; if not, a leader deletes its rows in a"
                    " minute",
                )
        for node in alive:
            queues = Counter(queue.queue for queue in node.queues if queue.alive)
            if twice := [queue for queue, count in queues.items() if count > 1]:
                yield note(
                    f"several processes are named {node.node}, or one was killed and restarted:"
                    f" they run {', '.join(twice)}",
                    "give each process a node name of its own, so that an order can name one of"
                    " them",
                )
        if alive:
            yield ok(f"alive: {', '.join(node.node for node in alive)}")
        else:
            yield note("no node runs", "oban-sqla start")

    async def _leader(self) -> AsyncIterator[Result]:
        leading = {
            lease.instance: lease for lease in self._presence.leaders if lease.expires_in > 0
        }
        running = {node.instance for node in self._presence.nodes if node.alive}
        for instance in sorted(running - leading.keys()):
            yield problem(
                f"{instance} has no leader: cron, rescue and pruning stand still",
                "run at least one node with leadership = true; see its log for failed elections",
            )
        for instance in sorted(running & leading.keys()):
            yield ok(f"{leading[instance].node} is the leader of {instance}")

    async def _orphans(self) -> AsyncIterator[Result]:
        statement = queries.orphans(rescue_after=self._rescue_after)
        orphans = Counter({row.lost: row.count for row in await self._database.fetch(statement)})
        for node in self._presence.nodes:
            silent = sum(
                queue.running for queue in node.queues if not queue.alive and not queue.foreign
            )
            orphans.update({node.node: silent} if silent else {})
        for name, count in orphans.items():
            yield problem(
                f"{name or 'an unknown node'} is gone, but still has executing jobs: {count}",
                "a leader rescues them; if they stay, check that there is a leader, and see its"
                " log for errors",
            )

    async def _queues(self) -> AsyncIterator[Result]:
        run = self._presence.run
        for row in self._counts:
            if row.state == "available" and row.queue not in run:
                yield problem(
                    f"no node runs the queue {row.queue}, which has available jobs: {row.count}",
                    f"oban-sqla start --queues {row.queue}:10, or add it to the queues of a node",
                )

    async def _jobs(self) -> AsyncIterator[Result]:
        states = Counter[str]()
        for row in self._counts:
            states[row.state] += row.count
        unknown = {state: states[state] for state in sorted(states.keys() - {*JobState})}
        for state, count in unknown.items():
            yield problem(
                f"jobs are in the state {state!r}, which this version does not know: {count}",
                "move them with the program that created them; this version does not touch them",
            )
        rows = await self._database.fetch(queries.malformed(MALFORMED))
        if rows:
            more = " at least" if len(rows) == MALFORMED else ""
            yield problem(
                f"jobs have args or meta that are not a JSON object:{more} {len(rows)},"
                f" the first is {rows[0].id}",
                "correct these jobs, or cancel them: their workers expect objects",
            )

    async def _outcomes(self) -> AsyncIterator[Result]:
        for node in self._presence.nodes:
            for queue in node.queues:
                for id in queue.delayed_outcomes:
                    yield problem(
                        f"{node.node} can't write the outcome of job {id} of queue {queue.queue}",
                        "see its log for the reason: a transaction that locks the row, or a"
                        " constraint or trigger of the table that refuses the outcome",
                    )
                for id in queue.refused_jobs:
                    yield problem(
                        f"{node.node} can't claim job {id} of queue {queue.queue}",
                        "see its log for the reason: a constraint or trigger of the table that"
                        " refuses the claim; correct it, or cancel the job",
                    )

    async def _threads(self) -> AsyncIterator[Result]:
        for node in self._presence.nodes:
            for queue in node.queues:
                if queue.left_behind:
                    ids = ", ".join(map(str, queue.left_behind[:20]))
                    yield problem(
                        f"on {node.node}, jobs of queue {queue.queue} have ended, but their threads"
                        f" or tasks have not: they take {len(queue.left_behind)} of"
                        f" {queue.limit or 'its'} slots: {ids}",
                        "set timeouts for the calls in which the worker hangs; a restart of the"
                        " node frees the slots",
                    )

    async def _pauses(self) -> AsyncIterator[Result]:
        rows = await self._database.fetch(queries.orders())
        orders = [row for row in rows if row.setting == "paused"]
        forgotten = [
            row
            for row in orders
            if row.action == "pause"
            and row.seconds_ago > FORGOTTEN_AFTER
            and not any(_overrides(other, row) for other in orders)
        ]
        for row in forgotten:
            which = "every queue" if row.queue == "*" else row.queue
            where = "" if row.node == "*" else f" on {row.node}"
            options = "" if row.node == "*" else f" --node {row.node}"
            options += "" if row.name == DEFAULT_NAME else f" --name {row.name}"
            target = "--all" if row.queue == "*" else row.queue
            yield problem(
                f"{which} was paused{where} {ago(row.seconds_ago)}, and is still paused",
                f"oban-sqla queues resume {target}{options}",
            )

    async def _pools(self) -> AsyncIterator[Result]:
        for node in self._presence.nodes:
            size, needed = node.pool_size, node.pool_needed
            if node.alive and size is not None and needed is not None and size < needed:
                yield problem(
                    f"the pool of {node.node} opens at most {size} connections, but its jobs with"
                    f" a session and the node itself may use {needed} at once",
                    f"make its engine with pool_size={needed}, set pool_size = {needed} beside its"
                    " dsn, or lower the limits of its queues",
                )


def _overrides(newer: Any, order: Any) -> bool:
    """Whether a newer order covers the queue and the node of an older order."""
    return (
        newer.name == order.name
        and newer.seconds_ago < order.seconds_ago
        and newer.queue in ("*", order.queue)
        and newer.node in ("*", order.node)
    )
