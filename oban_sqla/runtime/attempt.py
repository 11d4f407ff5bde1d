"""`Attempt`: a claimed job on its way through the executor, and whoever wants it to end."""

import asyncio
from typing import Any

from sqlalchemy import inspect

from ..models import Job
from ..models.job import COLUMNS, detached, tell_to_stop


class Attempt:
    """One attempt of a job.

    The worker may change its job, or add it to a session, whose commit expires it: it gets a copy
    as its `own`, and the outcome is written by the one that was claimed.
    """

    __slots__ = ("__weakref__", "_task", "cancelled", "interrupted", "job", "own")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.own = copy(job)
        self.cancelled = False
        """Whether somebody wants it to end."""
        self.interrupted = False
        """Whether its task was cancelled for that."""
        self._task: asyncio.Task[Any] | None = None

    def cancel(self) -> None:
        """Tell the worker that the job is cancelled, and interrupt it if it wants that; once."""
        if not self.cancelled:
            self.cancelled = True
            tell_to_stop(self.own)
            if self._task is not None:
                self.interrupted = True
                self._task.cancel()

    def interruptible_by(self, task: asyncio.Task[Any] | None) -> None:
        """From now on, cancelling the job cancels this task; `None`: not any more."""
        self._task = task


def copy(job: Job) -> Job:
    """A job of the same columns, in no session."""
    loaded = inspect(job).dict
    return detached({key: loaded[key] for key in COLUMNS})
