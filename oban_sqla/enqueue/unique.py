"""The statements that insert unique jobs, without I/O, for any `conn`.

Each unique job is inserted, or becomes the existing job of which it is a duplicate.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from ..errors import ObanError
from ..models import Job, JobState
from ..models.notation import from_table
from ..models.unique_job import become, hold_key, may_hold_key, replaces, unique_key
from ..models.validation import instant
from ..series import Series
from ..statements.execute import Make, Parameters
from ..statements.insert import records
from ..statements.unique import duplicates, find, insert_unique, settle
from .from_rows import fill

# Tries for a job that conflicts at its insert, and whose existing job is gone when it is looked up.
TRIES = 20

_TIMES = (
    *("inserted_at", "scheduled_at", "attempted_at"),
    *("cancelled_at", "completed_at", "discarded_at"),
)

Steps: TypeAlias = Series[tuple[Make, Parameters], None]
"""A series of statements with their parameters."""


def apart(jobs: Sequence[Job]) -> tuple[Sequence[Job], Sequence[Job]]:
    """Give unique jobs their keys. Returns the jobs without a key, and the jobs with a key.

    `ValueError` or `TypeError` for args or meta that can't be stored.
    """
    if not any(map(may_hold_key, jobs)):
        return jobs, ()
    plain: list[Job] = []
    unique: list[Job] = []
    for job in jobs:
        (unique if may_hold_key(job) and hold_key(job) else plain).append(job)
    return plain, unique


def steps(jobs: Sequence[Job]) -> Steps:
    """Insert jobs that hold a unique key, or turn each duplicate into the existing job.

    `ObanError` if other jobs come and go so fast that neither succeeds.
    """
    keys = [unique_key(job) for job in jobs]
    # The indexes of the remaining jobs, in order. The first job of each key may be inserted.
    left = dict.fromkeys(range(len(jobs)))
    for _ in range(TRIES):
        first = {keys[n]: n for n in reversed(left)}
        rows = yield insert_unique, {"jobs": records([jobs[n] for n in first.values()])}
        inserted = [first[key] for key, *_ in rows]
        if rows:
            fill([jobs[n] for n in inserted], [row[1] for row in rows], rows[0][2])
        for n in inserted:
            del left[n]
        for turn in _turns(left, keys, jobs):
            of_turn = [jobs[n] for n in turn]
            rows = yield settle if any(map(replaces, of_turn)) else find, duplicates(of_turn)
            for place, text, *_ in rows:
                become(jobs[turn[place]], _values(text))
                del left[turn[place]]
        if not left:
            return
    job = jobs[next(iter(left))]
    raise ObanError(f"{job!r} conflicts with unique jobs that come and go too fast; try again")


def _turns(left: Iterable[int], keys: Sequence[str], jobs: Sequence[Job]) -> list[list[int]]:
    """Take one job per unique key, so that one statement can replace the stored jobs."""
    turns: list[list[int]] = []
    seen: Counter[str] = Counter()
    for n in left:
        turn = seen[keys[n]]
        if replaces(jobs[n]):
            seen[keys[n]] += 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(n)
    return turns


def _values(text: str) -> dict[str, Any]:
    """The columns of a job from JSON."""
    values: dict[str, Any] = json.loads(text)
    values["state"] = JobState(values["state"])
    values["args"] = from_table(values["args"])
    for name in _TIMES:
        if values[name] is not None:
            values[name] = instant(name, datetime.fromisoformat(values[name]))
    return values
