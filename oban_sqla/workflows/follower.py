"""`WorkflowFollower`: the outcome of a step releases the steps that wait for it."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from sqlalchemy import Executable, Row

from ..clock import held_at
from ..events import WorkflowStop
from ..models import Job
from ..runtime.following import Followed, Statements
from ..statements.announce import announce, announcement
from ..wakeups import Wakeup
from .release import lock, release
from .reopen import reopen
from .values import results_of


class WorkflowFollower:
    """Releases waiting steps in the transaction that writes the outcomes of their deps."""

    key = "workflow_id"

    def concerns(self, meta: Mapping[str, Any]) -> bool:
        """Whether a job with this meta is a step."""
        return self.key in meta

    def follow(self, ids: Sequence[int], *, wait: bool, prefix: str | None) -> Statements:
        """Release the steps that wait for these jobs. Locked steps are released later."""
        given = list(ids)
        locks = yield lock(skip_locked=not wait), {"ids": given}
        roots = [row.root for row in locks if row.locked]
        if not roots:
            return Followed(late=given if locks else ())
        params = {"ids": given, "roots": roots}
        (row,) = yield release(now=held_at()), params
        wakeup = _wakeup(row)
        if wakeup:
            yield announce(prefix=prefix), announcement(wakeup)
        events = [("workflow_stop", WorkflowStop(*ended)) for ended in row.ended or ()]
        late = given if len(roots) < len(locks) or row.blocked else ()
        return Followed(wakeup, row.cancelled, events, late)

    def reopen(self, ids: Sequence[int]) -> Statements:
        """Let steps wait again that were cancelled because these jobs had failed."""
        given = list(ids)
        locks = yield lock(skip_locked=False), {"ids": given}
        if locks:
            yield reopen(now=held_at()), {"ids": given, "roots": [row.root for row in locks]}
        return Followed()

    def results(self, job: Job) -> tuple[Executable, Mapping[str, Any]]:
        """The statement that finds the values of a step's deps."""
        own = job.meta["workflow_id"]
        deps = [[own, dep] if isinstance(dep, str) else dep for dep in job.meta.get("deps", [])]
        return results_of(deps)


def _wakeup(row: Row[Any]) -> Wakeup:
    due_at = row.due_at
    if due_at is not None and due_at.tzinfo is None:
        due_at = due_at.replace(tzinfo=UTC)
    return Wakeup(frozenset(row.queues), due_at)
