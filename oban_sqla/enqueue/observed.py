"""Emit the events of enqueueing: once for each call, and once for each flush.

Most flushes insert their jobs at once. If a job waits for the key of a row, or the unit of work
inserts it, the event of the flush stays open until the flush ends.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from ..errors import ObanError
from ..events import EnqueueStart, EnqueueStop, emit, enqueueing, listened
from ..models import Job

_VALUES = frozenset(signature(Job.__init__).parameters) - {"self", "unique"}
_OPEN = "oban_sqla_enqueueing"


class _Event:
    """The pair of `enqueue_start` and `enqueue_stop` for some jobs."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._start = EnqueueStart(jobs)
        self._began = time.monotonic()
        emit(enqueueing, "enqueue_start", self._start)

    def stop(self, error: BaseException | None = None) -> None:
        duration = time.monotonic() - self._began
        emit(enqueueing, "enqueue_stop", EnqueueStop(self._start, duration, error))


class observed:  # noqa: N801 - used like a function
    """Emit the events around a block that inserts the jobs."""

    # Not a generator, which would cost a single job more, also without listeners.

    __slots__ = ("_event", "_jobs")

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._event: _Event | None = None

    def __enter__(self) -> None:
        if self._jobs and is_observed():
            self._event = _Event(self._jobs)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._event is not None:
            self._event.stop(error)


@contextmanager
def flushing(session: Session, jobs: Sequence[Job]) -> Iterator[None]:
    """Emit the events around a block that begins a flush, which inserts the jobs now or later."""
    if not is_observed():
        yield
        return
    event = _Event(tuple(jobs))
    try:
        yield
    except BaseException as error:
        event.stop(error)
        raise
    if all(inspect(job).has_identity for job in jobs):
        event.stop()
    else:
        _keep_open(session, event, jobs)


@contextmanager
def inserting(parameters: object) -> Iterator[Any]:
    """Emit the events around a block that inserts rows, and give it the `meta` from listeners.

    Parameters that are not new jobs, such as SQL expressions, cause no event.
    """
    rows: list[Any] = parameters if isinstance(parameters, list) else [parameters]
    jobs = _described(rows) if is_observed() else None
    if jobs is None:
        yield None
        return
    with observed(jobs):
        changed = [{"meta": job.meta} for job in jobs]
        yield changed if isinstance(parameters, list) else changed[0]


def late(session: Session, job: Job) -> None:
    """Begin the event of a job that the unit of work inserts, unless its flush has begun it."""
    if is_observed() and id(job) not in session.info.get(_OPEN, ()):
        _keep_open(session, _Event((job,)), [job])


def flushed(session: Session) -> None:
    """End the open events, after a successful flush."""
    for event in _take_open(session):
        event.stop()


def undone(session: Session) -> None:
    """End the open events with an error, after a failed flush."""
    for event in _take_open(session):
        event.stop(sys.exception() or ObanError("the flush was rolled back"))


def _described(rows: Iterable[Any]) -> list[Job] | None:
    """Jobs with the values of rows; `None` if the rows are not new jobs."""
    try:
        return [Job(**{key: row[key] for key in _VALUES if key in row}) for row in rows]
    except (TypeError, ValueError):
        return None


def is_observed() -> bool:
    """Whether the events have listeners."""
    return listened(enqueueing, "enqueue_start", "enqueue_stop")


def _keep_open(session: Session, event: _Event, jobs: Iterable[Job]) -> None:
    session.info.setdefault(_OPEN, {}).update((id(job), event) for job in jobs)


def _take_open(session: Session) -> list[_Event]:
    # Each event once, in the order of their starts.
    return list(dict.fromkeys(session.info.pop(_OPEN, {}).values()))
