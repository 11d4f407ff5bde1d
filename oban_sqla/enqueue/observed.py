"""Tell listeners of jobs that are enqueued: once for each call, and once for each flush.

Most flushes insert their jobs at once. A job that waits for the key of a row, or that the unit of
work inserts, keeps the event of its flush open until the flush ends.
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
    """The event of some jobs, from its start to its stop."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._start = EnqueueStart(jobs)
        self._began = time.monotonic()
        emit(enqueueing, "enqueue_start", self._start)

    def stop(self, error: BaseException | None = None) -> None:
        duration = time.monotonic() - self._began
        emit(enqueueing, "enqueue_stop", EnqueueStop(self._start, duration, error))


@contextmanager
def observed(jobs: Sequence[Job]) -> Iterator[None]:
    """The block inserts the jobs."""
    if not jobs or not is_observed():
        yield
        return
    event = _Event(jobs)
    try:
        yield
    except BaseException as error:
        event.stop(error)
        raise
    event.stop()


@contextmanager
def flushing(session: Session, jobs: Sequence[Job]) -> Iterator[None]:
    """The block begins a flush, which inserts the jobs now or later."""
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
    """The block inserts rows of parameters; it gets the `meta` that listeners gave each of them.

    Values that are no new jobs, such as SQL expressions, pass without an event.
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
    """The unit of work inserts a job, which was added while the flush ran, perhaps."""
    if is_observed() and id(job) not in session.info.get(_OPEN, ()):
        _keep_open(session, _Event((job,)), [job])


def flushed(session: Session) -> None:
    """The flush ended well."""
    for event in _take_open(session):
        event.stop()


def undone(session: Session) -> None:
    """The flush failed, or its transaction ended before it did."""
    for event in _take_open(session):
        event.stop(sys.exception() or ObanError("the flush was rolled back"))


def _described(rows: Iterable[Any]) -> list[Job] | None:
    """Jobs with the values of rows."""
    try:
        return [Job(**{key: row[key] for key in _VALUES if key in row}) for row in rows]
    except (TypeError, ValueError):
        return None


def is_observed() -> bool:
    """Whether anybody listens."""
    return listened(enqueueing, "enqueue_start", "enqueue_stop")


def _keep_open(session: Session, event: _Event, jobs: Iterable[Job]) -> None:
    session.info.setdefault(_OPEN, {}).update((id(job), event) for job in jobs)


def _take_open(session: Session) -> list[_Event]:
    # Each event once, in the order in which they began.
    return list(dict.fromkeys(session.info.pop(_OPEN, {}).values()))
