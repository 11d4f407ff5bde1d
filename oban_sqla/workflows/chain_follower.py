"""`ChainFollower`: the end of a job lets the next job of its chain run."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from sqlalchemy import Executable, false, select

from ..clock import held_at
from ..models import Job, JobState
from ..models.chain import ENTRY
from ..runtime.following import Followed, Statements
from ..statements.announce import announce, announcement
from ..wakeups import Wakeup
from .chains import chains_of, lock_chains, release_next, suspend_again


class ChainFollower:
    """Lets the next job of a chain run, in the transaction that ends the job before it."""

    key = ENTRY

    def __init__(self) -> None:
        # A process that has seen no job of a chain saves the query for chains.
        self._seen = False

    def concerns(self, meta: Mapping[str, Any]) -> bool:
        """Whether a job with this meta is in a chain."""
        is_in_chain = self.key in meta
        self._seen = self._seen or is_in_chain
        return is_in_chain

    def follow(self, ids: Sequence[int], *, wait: bool, prefix: str | None) -> Statements:
        """Release the next job of each job's chain. Locked jobs are released later.

        Without `wait`, so are the jobs of locked chains.
        """
        if not (self._seen or wait):
            return Followed()
        chains = yield chains_of(), {"ids": list(ids)}
        if not chains:
            return Followed()
        names, table = [row.chain for row in chains], chains[0].table
        return (yield from advance(names, ids, table=table, wait=wait, prefix=prefix))

    def reopen(self, ids: Sequence[int]) -> Statements:
        """Suspend retried jobs until their chains reach them."""
        chains = yield chains_of(), {"ids": list(ids)}
        if chains:
            names, table = sorted(row.chain for row in chains), chains[0].table
            yield lock_chains(wait=True), {"chains": names, "table": table}
            yield suspend_again(), {"ids": list(ids)}
            return (
                yield from advance(names, ids, table=table, wait=True, prefix=None, announced=False)
            )
        return Followed()

    def results(self, job: Job) -> tuple[Executable, Mapping[str, Any]]:
        """A statement without rows: the jobs of a chain pass no results on."""
        return select(Job.worker, Job.meta).where(false()), {}


def advance(
    chains: Sequence[str],
    ids: Sequence[int],
    *,
    table: int,
    wait: bool,
    prefix: str | None,
    announced: bool = True,
) -> Statements:
    """Let the next job run in each chain without a running job. `table`: the id of its table."""
    # In the order in which new jobs lock them, which the server's collation need not have.
    locks = yield lock_chains(wait=wait), {"chains": sorted(chains), "table": table}
    free = [row.chain for row in locks if row.locked]
    if not free:
        return Followed(late=ids)
    rows = yield release_next(now=held_at()), {"chains": free, "ids": list(ids)}
    moved = [row for row in rows if row.state is not None]
    late = ids if len(free) < len(chains) or len(moved) < len(rows) else ()
    released = [row for row in moved if row.state != JobState.CANCELLED]
    queues = frozenset(row.queue for row in released if row.state == JobState.AVAILABLE)
    due = [row.scheduled_at for row in released if row.state == JobState.SCHEDULED]
    due_at = min(due, default=None)
    wakeup = Wakeup(queues, due_at.replace(tzinfo=UTC) if due_at is not None else None)
    if wakeup and announced:
        yield announce(prefix=prefix), announcement(wakeup)
    cancelled = [row.id for row in moved if row.state == JobState.CANCELLED]
    return Followed(wakeup, cancelled, late=late)
