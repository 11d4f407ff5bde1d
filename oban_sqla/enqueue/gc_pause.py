"""Pause Python's garbage collector while many jobs are made, encoded or filled in."""

import asyncio
import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

from ..models import Job

# Other tasks of the event loop get a turn after this many jobs, which take some milliseconds.
SLICE = 500

# Seconds after which the collector runs again, though a block still awaits.
LONGEST_PAUSE = 1.0

# With fewer jobs, the collector has nothing to do.
_MANY = 50

# Whether a block that awaits has paused the collector.
_is_paused = False


class paused:  # noqa: N801 - used like a function
    """Pause the garbage collector during a block that awaits nothing and handles many jobs.

    A job consists of nine objects that the collector tracks, and none of them is garbage. While
    10,000 jobs are made, the collector would go over all objects of the process several times,
    which takes as long as the rest of their insertion.
    """

    # Not a generator, which would cost a single job more than its encoding.

    __slots__ = ("_pauses",)

    def __init__(self, jobs: int) -> None:
        self._pauses = jobs >= _MANY and gc.isenabled()

    def __enter__(self) -> None:
        if self._pauses:
            gc.disable()

    def __exit__(self, *exception: object) -> None:
        if self._pauses:
            gc.enable()


@contextmanager
def paused_briefly() -> Iterator[None]:
    """Pause the garbage collector during a block that awaits, at most for `LONGEST_PAUSE` seconds.

    Otherwise the collector would run after each slice of jobs. A tenth of the time of 10,000 jobs
    would be that of the collector, or half of it if the jobs cause a full collection.
    """
    if not gc.isenabled():
        yield
        return
    _pause()
    # The server may not answer, and other tasks run meanwhile.
    end = asyncio.get_running_loop().call_later(LONGEST_PAUSE, _resume)
    try:
        yield
    finally:
        end.cancel()
        _resume()


def _pause() -> None:
    global _is_paused
    _is_paused = True
    gc.disable()


def _resume() -> None:
    global _is_paused
    if _is_paused:
        _is_paused = False
        gc.enable()


if hasattr(os, "register_at_fork"):
    # Another task may fork, and the block never ends in the child.
    os.register_at_fork(after_in_child=_resume)


def slices(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """Take jobs from an iterable, some at a time."""
    iterator = iter(jobs)
    while some := _taken(iterator):
        yield some


def _taken(jobs: Iterator[Job]) -> list[Job]:
    with paused(SLICE):
        return [*islice(jobs, SLICE)]
