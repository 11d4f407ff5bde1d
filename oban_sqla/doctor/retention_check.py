"""`RetentionCheck`: find finished jobs that the pruner does not delete."""

from collections.abc import AsyncIterator

from ..config.retention import Retention
from ..durations import duration
from ..runtime.database import Database
from ..runtime.presence import Presence
from ..runtime.pruner import INTERVAL, rules
from ..statements.prune import expired
from .finding import Check, Result, ok, problem
from .queries import obstacles

# Seconds after its retention by which a job should be deleted.
LATE = 10 * INTERVAL
# The most late jobs that are counted for a rule.
MOST_LATE = 1000


class RetentionCheck:
    """Finds jobs that are past their retention although there is a leader."""

    def __init__(self, database: Database, presence: Presence, retention: Retention) -> None:
        self._database = database
        self._presence = presence
        self._retention = retention
        self.check = Check(self._results, otherwise="no job is past its retention")

    async def _results(self) -> AsyncIterator[Result]:
        """One problem for each rule of retention whose jobs are not deleted."""
        if not any(lease.expires_in > 0 for lease in self._presence.leaders):
            yield ok("not checked: there is no leader that prunes")
            return
        for rule in rules(self._retention):
            statement = expired(rule.state, named=rule.named)
            parameters = rule.parameters(older=LATE, batch=MOST_LATE)
            rows = await self._database.fetch(statement, parameters)
            if rows:
                more = " at least" if len(rows) == MOST_LATE else ""
                whose = f" of {rule.workers[0]}" if rule.named else ""
                yield problem(
                    f"{rule.state.value} jobs{whose} are kept for {duration(rule.age)}, but older"
                    f" jobs still exist:{more} {len(rows)}, the first is {rows[0].id}",
                    await self._remedy(),
                )

    async def _remedy(self) -> str:
        keys = await self._database.fetch(obstacles(self._database.prefix or ""))
        if not keys:
            return "see the log of the leader: it names the jobs that can't be deleted, and why"
        names = ", ".join(f"{key.name} of {key.table}" for key in keys)
        return f"foreign keys forbid the deletion: make them ON DELETE SET NULL or CASCADE: {names}"
