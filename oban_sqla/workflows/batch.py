"""`Batch`: independent jobs, and callbacks that run when they have ended."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..models import Job
from .workflow import Workflow


class Batch(Workflow):
    """Any number of jobs, and callbacks: jobs that run once, depending on the outcomes::

        batch = Batch([send.new(user) for user in users], on_exhausted=report.new())
        session.add(batch)  # or: await oban.enqueue(batch)

    A batch is a workflow without deps. Its callbacks are `suspended` jobs of the workflow. When all
    jobs have ended, callbacks whose condition is not met are cancelled.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        *,
        name: str | None = None,
        meta: Mapping[str, Any] | None = None,
        on_completed: Job | None = None,
        on_exhausted: Job | None = None,
        on_attempted: Job | None = None,
        on_discarded: Job | None = None,
        on_cancelled: Job | None = None,
    ) -> None:
        """Make a batch of jobs. The name of each step is its number.

        on_completed: runs if all jobs were completed.
        on_exhausted: runs when all jobs have ended, with any outcome.
        on_attempted: runs when each job has had one attempt.
        on_discarded: runs when the first job is discarded.
        on_cancelled: runs when the first job is cancelled or deleted.

        `ValueError` or `TypeError` for a job that can't be in a batch, for example because it was
        enqueued already.
        """
        super().__init__(name, meta=meta)
        for number, job in enumerate(jobs, 1):
            self.add(f"{number}", job)
        callbacks = {
            "on_completed": on_completed,
            "on_exhausted": on_exhausted,
            "on_attempted": on_attempted,
            "on_discarded": on_discarded,
            "on_cancelled": on_cancelled,
        }
        for event, callback in callbacks.items():
            if callback is not None:
                self._draft(event, callback, kind=event)
