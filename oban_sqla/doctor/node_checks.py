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
from .finding import Check, Finding

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
            "nodes": self._nodes,
            "leader": self._leader,
            "orphans": self._orphans,
            "queues": self._queues,
            "jobs": self._jobs,
            "threads": self._threads,
            "pauses": self._pauses,
            "pools": self._pools,
            "outcomes": self._outcomes,
        }

    async def _nodes(self) -> AsyncIterator[Finding]:
        alive = [node for node in self._presence.nodes if node.alive]
        for node in self._presence.nodes:
            if not node.alive:
                yield Finding(
                    "nodes",
                    "problem",
                    f"{node.node} has sent no heartbeat for {duration(node.silent_for)}",
                    "check whether the node still runs; if not, a leader deletes its rows in a"
                    " minute",
                )
        for node in alive:
            queues = Counter(queue.queue for queue in node.queues if queue.alive)
            if twice := [queue for queue, count in queues.items() if count > 1]:
                yield Finding(
                    "nodes",
                    "note",
                    f"several processes are named {node.node}, or one was killed and restarted:"
                    f" they run {', '.join(twice)}",
                    "give each process a node name of its own, so that an order can name one of"
                    " them",
                )
        if alive:
            yield Finding("nodes", "ok", f"alive: {', '.join(node.node for node in alive)}")
        else:
            yield Finding("nodes", "note", "no node runs", "oban-sqla start")

    async def _leader(self) -> AsyncIterator[Finding]:
        leading = {
            lease.instance: lease for lease in self._presence.leaders if lease.expires_in > 0
        }
        running = {node.instance for node in self._presence.nodes if node.alive}
        for instance in sorted(running - leading.keys()):
            yield Finding(
                "leader",
                "problem",
                f"{instance} has no leader: cron, rescue and pruning stand still",
                "run at least one node with leadership = true; see its log for failed elections",
            )
        for instance in sorted(running & leading.keys()):
            yield Finding("leader", "ok", f"{leading[instance].node} is the leader of {instance}")

    async def _orphans(self) -> AsyncIterator[Finding]:
        statement = queries.orphans(rescue_after=self._rescue_after)
        orphans = Counter({row.lost: row.count for row in await self._database.fetch(statement)})
        for node in self._presence.nodes:
            silent = sum(
                queue.running for queue in node.queues if not queue.alive and not queue.foreign
            )
            orphans.update({node.node: silent} if silent else {})
        for name, count in orphans.items():
            yield Finding(
                "orphans",
                "problem",
                f"{name or 'an unknown node'} is gone, but still has executing jobs: {count}",
                "a leader rescues them; if they stay, check that there is a leader, and see its"
                " log for errors",
            )
        if not orphans:
            yield Finding("orphans", "ok", "the nodes of all executing jobs are alive")

    async def _queues(self) -> AsyncIterator[Finding]:
        found = False
        run = self._presence.run
        for row in self._counts:
            if row.state == "available" and row.queue not in run:
                found = True
                yield Finding(
                    "queues",
                    "problem",
                    f"no node runs the queue {row.queue}, which has available jobs: {row.count}",
                    f"oban-sqla start --queues {row.queue}:10, or add it to the queues of a node",
                )
        if not found:
            yield Finding("queues", "ok", "a node runs each queue that has available jobs")

    async def _jobs(self) -> AsyncIterator[Finding]:
        states = Counter[str]()
        for row in self._counts:
            states[row.state] += row.count
        unknown = {state: states[state] for state in sorted(states.keys() - {*JobState})}
        for state, count in unknown.items():
            yield Finding(
                "jobs",
                "problem",
                f"jobs are in the state {state!r}, which this version does not know: {count}",
                "move them with the program that created them; this version does not touch them",
            )
        rows = await self._database.fetch(queries.malformed(MALFORMED))
        if rows:
            more = " at least" if len(rows) == MALFORMED else ""
            yield Finding(
                "jobs",
                "problem",
                f"jobs have args or meta that are not a JSON object:{more} {len(rows)},"
                f" the first is {rows[0].id}",
                "correct these jobs, or cancel them: their workers expect objects",
            )
        if not unknown and not rows:
            yield Finding("jobs", "ok", "every job is well-formed")

    async def _outcomes(self) -> AsyncIterator[Finding]:
        found = False
        for node in self._presence.nodes:
            for queue in node.queues:
                for id in queue.delayed_outcomes:
                    found = True
                    yield Finding(
                        "outcomes",
                        "problem",
                        f"{node.node} can't write the outcome of job {id} of queue {queue.queue}",
                        "see its log for the reason: a transaction that locks the row, or a"
                        " constraint or trigger of the table that refuses the outcome",
                    )
        if not found:
            yield Finding("outcomes", "ok", "every outcome is written")

    async def _threads(self) -> AsyncIterator[Finding]:
        found = False
        for node in self._presence.nodes:
            for queue in node.queues:
                if queue.left_behind:
                    found = True
                    ids = ", ".join(map(str, queue.left_behind[:20]))
                    yield Finding(
                        "threads",
                        "problem",
                        f"on {node.node}, jobs of queue {queue.queue} have ended, but their threads"
                        f" or tasks have not: they take {len(queue.left_behind)} of"
                        f" {queue.limit or 'its'} places: {ids}",
                        "set timeouts for the calls in which the worker hangs; a restart of the"
                        " node frees the places",
                    )
        if not found:
            yield Finding("threads", "ok", "no thread or task still runs after its job has ended")

    async def _pauses(self) -> AsyncIterator[Finding]:
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
            yield Finding(
                "pauses",
                "problem",
                f"{which} was paused{where} {ago(row.seconds_ago)}, and is still paused",
                f"oban-sqla queues resume {target}{options}",
            )
        if not forgotten:
            yield Finding("pauses", "ok", "no pause is forgotten")

    async def _pools(self) -> AsyncIterator[Finding]:
        found = False
        for node in self._presence.nodes:
            size, needed = node.pool_size, node.pool_needed
            if node.alive and size is not None and needed is not None and size < needed:
                found = True
                yield Finding(
                    "pools",
                    "problem",
                    f"the pool of {node.node} opens at most {size} connections, but its jobs with"
                    f" a session and the node itself may use {needed} at once",
                    f"make its engine with pool_size={needed}, set pool_size = {needed} beside its"
                    " dsn, or lower the limits of its queues",
                )
        if not found:
            yield Finding("pools", "ok", "every pool is large enough")


def _overrides(newer: Any, order: Any) -> bool:
    """Whether a newer order covers the queue and the node of an older order."""
    return (
        newer.name == order.name
        and newer.seconds_ago < order.seconds_ago
        and newer.queue in ("*", order.queue)
        and newer.node in ("*", order.node)
    )
