"""Pause Python's garbage collector while many jobs are made, encoded or filled in."""

import gc
from collections.abc import Iterable, Iterator
from itertools import islice

from ..models import Job

# Other tasks of the event loop get a turn after this many jobs, which take some milliseconds.
SLICE = 500


# With fewer jobs, the collector has nothing to do.
_MANY = 50


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


def slices(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """Take jobs from an iterable, some at a time."""
    iterator = iter(jobs)
    while some := _taken(iterator):
        yield some


def _taken(jobs: Iterator[Job]) -> list[Job]:
    with paused(SLICE):
        return [*islice(jobs, SLICE)]
