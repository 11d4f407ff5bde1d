"""Format an exception with the user's frames, and fold ours."""

import asyncio
import threading
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from traceback import FrameSummary, StackSummary, TracebackException
from typing import Any

import sqlalchemy

_OURS = str(Path(__file__).parents[1])
# Frames between ours and those of a worker: greenlets, tasks and threads.
_BETWEEN = (
    str(Path(sqlalchemy.__file__).parent),
    str(Path(asyncio.__file__).parent),
    threading.__file__,
)
# The file name of a frame that replaces a run of our frames.
_FOLDED = "<oban_sqla>"


def describe(error: BaseException) -> str:
    """The traceback of an exception and its causes, as Python prints it.

    The frames before the user's first frame are folded into one line. Later frames of ours are
    folded, too, each run of them into one line.
    """
    try:
        told = TracebackException.from_exception(error)
        for one in _chain(told):
            one.stack = _Folded(_folded(one.stack))
        return "".join(told.format())
    except BaseException as wrong:
        # For example, a SyntaxError may have fields of the wrong type.
        return f"{type(error).__name__}, whose traceback can't be printed: {type(wrong).__name__}"


class _Folded(StackSummary):
    def format_frame_summary(self, frame_summary: FrameSummary, **options: Any) -> str:
        if frame_summary.filename == _FOLDED:
            return f"  ... {frame_summary.name} of oban_sqla ...\n"
        return super().format_frame_summary(frame_summary, **options)


def _chain(told: TracebackException) -> Iterator[TracebackException]:
    """An exception, its causes and contexts, and the exceptions of its groups, each once."""
    found, left = set[int](), [told]
    while left:
        one = left.pop()
        if id(one) not in found:
            found.add(id(one))
            yield one
            related = (one.__cause__, one.__context__, *(one.exceptions or ()))
            left += [other for other in related if other is not None]


def _folded(frames: StackSummary) -> Iterator[FrameSummary]:
    first = next((n for n, frame in enumerate(frames) if not _is_library(frame)), 0)
    if first and any(map(_is_ours, frames[:first])):
        yield _fold(first)
    else:
        first = 0
    for ours, run in groupby(frames[first:], _is_ours):
        if ours:
            yield _fold(len(list(run)))
        else:
            yield from run


def _fold(count: int) -> FrameSummary:
    return FrameSummary(_FOLDED, count, "1 frame" if count == 1 else f"{count} frames", line="")


def _is_ours(frame: FrameSummary) -> bool:
    return frame.filename.startswith(_OURS)


def _is_library(frame: FrameSummary) -> bool:
    return _is_ours(frame) or frame.filename.startswith(_BETWEEN)
