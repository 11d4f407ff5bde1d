"""`all_enqueued()`, `assert_enqueued()`, `refute_enqueued()`: jobs that have not been tried yet."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import Any, Unpack, overload

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..enqueue.session_of import BIND
from ..models import Job, JobState, validation
from ..oban import Oban
from ..statements.states import state_in
from .joined import Awaited, Plain, answer, on, unwrapped
from .matching import Expected, Filters

ENQUEUED = (JobState.AVAILABLE, JobState.SCHEDULED, JobState.SUSPENDED)
"""The states of a job before its first attempt."""

INTERVAL = 0.02
"""Seconds between two reads while a call waits for a job."""

SHOWN = 10
"""The most jobs that a failure shows."""


@overload
def all_enqueued(conn: Awaited, **expected: Unpack[Filters]) -> Awaitable[list[Job]]: ...
@overload
def all_enqueued(conn: Plain, **expected: Unpack[Filters]) -> list[Job]: ...
def all_enqueued(conn: Awaited | Plain, **expected: Unpack[Filters]) -> Any:
    """The enqueued jobs that match, the newest first::

        (job,) = await all_enqueued(session, worker=WelcomeEmail)

    Enqueued jobs are `available`, `scheduled` or `suspended`. Jobs that run, wait for a retry or
    are finished are left out.

    Args:
        conn: the session of the test, which is flushed, or an `Oban`.
        expected: `worker` (a class, a job function, or a name), `args` and `meta` (parts of them,
            at any depth; `mock.ANY` matches any value), `tags` (some of them), `queue`,
            `priority`, `max_attempts`, and `scheduled_at` or `schedule_in` (within a second).

    `TypeError` or `ValueError` for an unknown name, or a value that no job can have.
    """
    given = unwrapped(conn)
    return answer(given, _all(given, Expected(expected)))


@overload
def assert_enqueued(
    conn: Awaited, *, timeout: float | timedelta = 0.0, **expected: Unpack[Filters]
) -> Awaitable[Job]: ...
@overload
def assert_enqueued(
    conn: Plain, *, timeout: float | timedelta = 0.0, **expected: Unpack[Filters]
) -> Job: ...
def assert_enqueued(
    conn: Awaited | Plain, *, timeout: float | timedelta = 0.0, **expected: Unpack[Filters]
) -> Any:
    """The newest enqueued job that matches; `AssertionError` if there is none::

        await assert_enqueued(session, worker=WelcomeEmail, args={"email": "ann@shop.test"})

    The error shows the enqueued jobs, the most similar first. `all_enqueued` lists the names in
    `expected`.

    timeout: how long to wait for a job of another transaction: seconds or a `timedelta`.
    """
    given = unwrapped(conn)
    return answer(given, _assert(given, Expected(expected), _seconds(timeout)))


@overload
def refute_enqueued(
    conn: Awaited, *, timeout: float | timedelta = 0.0, **unexpected: Unpack[Filters]
) -> Awaitable[None]: ...
@overload
def refute_enqueued(
    conn: Plain, *, timeout: float | timedelta = 0.0, **unexpected: Unpack[Filters]
) -> None: ...
def refute_enqueued(
    conn: Awaited | Plain, *, timeout: float | timedelta = 0.0, **unexpected: Unpack[Filters]
) -> Any:
    """Raise an `AssertionError` that shows the enqueued jobs that match, if there are any.

    timeout: how long to watch for such a job: seconds or a `timedelta`.
    """
    given = unwrapped(conn)
    return answer(given, _refute(given, Expected(unexpected), _seconds(timeout)))


def _seconds(timeout: float | timedelta) -> float:
    return validation.delay("timeout", timeout).total_seconds()


async def _all(given: Any, expected: Expected) -> list[Job]:
    return [job for job in await _load(given, ENQUEUED) if not expected.differences(job)]


async def _assert(given: Any, expected: Expected, seconds: float) -> Job:
    found = await _found_within(given, expected, seconds)
    if not found:
        raise AssertionError(await _why_not(given, expected, seconds))
    return found[0]


async def _refute(given: Any, expected: Expected, seconds: float) -> None:
    if found := await _found_within(given, expected, seconds):
        what = f" with {expected}" if expected else ""
        raise AssertionError(f"enqueued{what}:\n" + _list([(job, []) for job in found]))


async def _found_within(given: Any, expected: Expected, seconds: float) -> list[Job]:
    until = time.monotonic() + seconds
    while True:
        found = await _all(given, expected)
        left = until - time.monotonic()
        if found or left <= 0:
            return found
        await asyncio.sleep(min(INTERVAL, left))


async def _why_not(given: Any, expected: Expected, seconds: float) -> str:
    what = f"with {expected} " if expected else ""
    text = f"no job {what}is enqueued" + (f", nor was within {seconds:g} s" if seconds else "")
    others = await _load(given, tuple(state for state in JobState if state not in ENQUEUED))
    past: list[tuple[Job, list[str]]] = [
        (job, []) for job in others if not expected.differences(job)
    ]
    if past:
        text += f"; jobs in other states that match:\n{_list(past)}"
    compared = [(job, expected.differences(job)) for job in await _load(given, ENQUEUED)]
    if not compared:
        return text + "\nnothing is enqueued"
    # A job of another worker differs most.
    nearest = sorted(compared, key=lambda one: (_of_another(one[1]), len(one[1])))
    return f"{text}\nenqueued, the nearest first:\n{_list(nearest)}"


def _of_another(differences: Sequence[str]) -> bool:
    return any(difference.startswith("worker ") for difference in differences)


def _list(jobs: Sequence[tuple[Job, list[str]]]) -> str:
    lines: list[str] = []
    for job, differences in jobs[:SHOWN]:
        lines.append(f"  {job.worker} {job.args} in {job.queue}, {job.state}, id {job.id}")
        lines += [f"    {difference}" for difference in differences]
    if len(jobs) > SHOWN:
        lines.append(f"  and {len(jobs) - SHOWN} more")
    return "\n".join(lines)


async def _load(given: Any, states: Sequence[JobState]) -> list[Job]:
    if isinstance(given, Oban):
        async with given._database.session() as session:
            return await session.run_sync(_jobs, states)
    return await on(given, lambda session: _jobs(session, states))


def _jobs(session: Session, states: Sequence[JobState]) -> list[Job]:
    session.flush()
    newest_first = select(Job).where(state_in(*states)).order_by(Job.id.desc())
    # Read the rows again: other transactions may have changed them.
    fresh = {"populate_existing": True}
    found = session.scalars(newest_first, execution_options=fresh, bind_arguments=BIND)
    return list(found.unique())
