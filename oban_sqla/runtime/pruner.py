"""The pruner: deletes finished jobs that are past their retention."""

import math
import time
from collections.abc import Callable, Iterator

from ..clock import LONGEST_INTERVAL
from ..config import Retention
from ..events import PruneStop
from ..models import JobState
from ..statements.prune import prune
from .database import Database
from .service import Emit, Service

INTERVAL = 60.0
# How many jobs one statement, which is one transaction, deletes.
BATCH = 5000


class Pruner(Service):
    """Deletes in small batches until nothing is left to delete, on the leader."""

    name = "pruner"

    def __init__(
        self,
        database: Database,
        emit: Emit,
        *,
        is_leader: Callable[[], bool],
        retention: Retention,
    ) -> None:
        super().__init__(emit)
        self._database = database
        self._is_leader = is_leader
        self._rules = list(_rules(retention))

    async def run_once(self) -> float:
        """Delete a batch by each rule; make another pass at once while one is full."""
        if not self._is_leader():
            return math.inf
        started = time.monotonic()
        total, full = 0, False
        for state, workers, named, age in self._rules:
            parameters = {"workers": workers, "age": min(age, LONGEST_INTERVAL), "batch": BATCH}
            (row,) = await self._database.fetch(prune(state, named=named), parameters)
            total += row.count
            full = full or row.count == BATCH
        self._emit("prune_stop", PruneStop(total, time.monotonic() - started))
        return 0.0 if full else INTERVAL


def _rules(retention: Retention) -> Iterator[tuple[JobState, list[str], bool, float]]:
    """For each statement: the state, the workers, whether these or the others, the seconds."""
    named = sorted(retention.workers)
    for state, age in retention.states.items():
        if age is not None:
            yield JobState(state), named, False, age
    for worker in named:
        for state, age in retention.workers[worker].items():
            if age is not None:
                yield JobState(state), [worker], True, age
