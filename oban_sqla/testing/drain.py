"""`drain_queue()`: run the enqueued jobs now."""

from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, overload

from sqlalchemy import select

from ..clock import held_at
from ..config.queues import Queue
from ..errors import ObanError
from ..models import Job, JobState, validation
from ..oban import Oban
from ..runtime.session_threads import close_session_threads
from ..statements.claim import claim_order
from ..statements.stage import stage
from ..statements.states import state_in
from .attempts import Attempts, JobDatabase
from .joined import Awaited, Plain, answer, join, on, unwrapped
from .refresh import refresh

MOST_SNOOZES = 100
"""The most snoozes of a job while it is drained."""

STAGE_BATCH = 10_000

Run = Callable[
    [JobDatabase, Attempts, list[str] | None, datetime | None], Coroutine[Any, Any, None]
]
"""Runs the jobs of some queues that are due until an instant."""

_AT_ANY_TIME = datetime(9999, 12, 31, tzinfo=UTC)


@overload
def drain_queue(
    conn: Awaited,
    queue: str | Iterable[str] | None = None,
    *,
    with_scheduled: bool | datetime = False,
    with_recursion: bool = True,
    with_safety: bool = False,
    with_limits: bool = False,
) -> Awaitable[dict[str, int]]: ...
@overload
def drain_queue(
    conn: Plain,
    queue: str | Iterable[str] | None = None,
    *,
    with_scheduled: bool | datetime = False,
    with_recursion: bool = True,
    with_safety: bool = False,
    with_limits: bool = False,
) -> dict[str, int]: ...
def drain_queue(
    conn: Awaited | Plain,
    queue: str | Iterable[str] | None = None,
    *,
    with_scheduled: bool | datetime = False,
    with_recursion: bool = True,
    with_safety: bool = False,
    with_limits: bool = False,
) -> Any:
    """Run the due jobs one after the other, and return how many ended in each state::

        assert await drain_queue(session, "mailers") == {
            "completed": 2, "cancelled": 0, "discarded": 0, "retryable": 0, "scheduled": 0,
        }

    Each attempt is counted by the state of its job afterwards: `scheduled` is a snooze.

    With a session, everything happens in its transaction: the session is flushed, and its jobs are
    claimed, run and acknowledged on its connection. Afterwards the instances in the session are
    read again: columns, loaded relationships and collections. An instance whose row is gone leaves
    the session. A worker that takes a session gets a new session in the same transaction, with a
    savepoint for each job. So the worker sees uncommitted data of the test, and its changes are
    rolled back if it raises. With an `Oban`, each job is committed.

    With a sync `Session`, workers run on a new event loop until all are done. Sync workers are
    called in a thread, as usual, unless they take a session.

    Args:
        conn: the session of the test, or an `Oban`, started or not.
        queue: one queue or several; `None` for all.
        with_scheduled: whether to run jobs, also retries, before they are due. A datetime runs the
            jobs that are due until then.
        with_recursion: whether to run jobs that become available meanwhile, such as jobs that a
            worker enqueues. Otherwise the jobs that are available at first run once each.
        with_safety: whether to only record the errors of workers. Otherwise an error is recorded,
            and raised here.
        with_limits: whether to leave jobs that may not start, by the limits and rates of workers,
            and of the queues of an `Oban`.

    `ObanError` if a job snoozes 100 times, since the call would not end.
    """
    given = unwrapped(conn)
    until = _until(with_scheduled)
    queues = _queues(queue)
    if with_limits and not with_recursion:
        raise ValueError("with_limits runs what becomes available meanwhile: with_recursion=True")
    limited = given._config.queues if isinstance(given, Oban) else ()
    run = (
        partial(_run_within_limits, limited={queue.name: queue for queue in limited})
        if with_limits
        else partial(_run, recursive=with_recursion)
    )
    return answer(given, _drain(given, queues, until, run, with_safety))


async def _drain(
    given: Any, queues: list[str] | None, until: datetime | None, run: Run, safe: bool
) -> dict[str, int]:
    if isinstance(given, Oban):
        await given._database.find_isolation()
        attempts = Attempts(given._database, with_safety=safe, emit=given._emit)
        try:
            await run(given._database, attempts, queues, until)
        finally:
            await close_session_threads(given._database)
        return attempts.counts
    database = await join(given)
    attempts = Attempts(database, with_safety=safe)
    try:
        await run(database, attempts, queues, until)
    finally:
        await on(given, refresh)
    return attempts.counts


async def _run(
    database: JobDatabase,
    attempts: Attempts,
    queues: list[str] | None,
    until: datetime | None,
    recursive: bool,
) -> None:
    snoozes: Counter[int] = Counter()
    while True:
        await _stage(database, queues, until)
        # Run one job at a time: a job that it enqueues may come before the remaining jobs.
        ids = await _available(database, queues, 1 if recursive else None)
        for id in ids:
            _count_snooze(snoozes, id, await attempts.run(id))
        if not ids or not recursive:
            return


async def _run_within_limits(
    database: JobDatabase,
    attempts: Attempts,
    queues: list[str] | None,
    until: datetime | None,
    limited: Mapping[str, Queue],
) -> None:
    snoozes: Counter[int] = Counter()
    ran = True
    while ran:
        ran = False
        await _stage(database, queues, until)
        waiting = select(Job.queue).where(state_in(JobState.AVAILABLE)).distinct()
        for (queue,) in await database.fetch(waiting.order_by(Job.queue)):
            if queues is None or queue in queues:
                found = await attempts.run_within_limits(limited.get(queue) or Queue(queue, 1))
                ran = ran or found is not None
                if found is not None:
                    _count_snooze(snoozes, *found)


def _count_snooze(snoozes: Counter[int], id: int, state: JobState | None) -> None:
    snoozes[id] += state is JobState.SCHEDULED
    if snoozes[id] == MOST_SNOOZES:
        raise ObanError(
            f"job {id} has snoozed {MOST_SNOOZES} times while it was drained: leave out"
            " with_scheduled, or pass the time until which jobs shall run"
        )


async def _stage(database: JobDatabase, queues: list[str] | None, until: datetime | None) -> None:
    statement = stage(prefix=database.prefix, now=until, of_queues=queues is not None)
    params = {"batch": STAGE_BATCH} | ({} if queues is None else {"queue_names": queues})
    while (await database.fetch(statement, params))[0].staged == STAGE_BATCH:
        pass


async def _available(
    database: JobDatabase, queues: list[str] | None, limit: int | None
) -> list[int]:
    statement = (
        select(Job.id).where(state_in(JobState.AVAILABLE)).order_by(*claim_order(Job)).limit(limit)
    )
    if queues is not None:
        statement = statement.where(Job.queue.in_(queues))
    return [id for (id,) in await database.fetch(statement)]


def _until(with_scheduled: bool | datetime) -> datetime | None:
    if isinstance(with_scheduled, bool):
        return _AT_ANY_TIME if with_scheduled else held_at()
    return validation.instant("with_scheduled", with_scheduled)


def _queues(queue: str | Iterable[str] | None) -> list[str] | None:
    if queue is None:
        return None
    given = queue if isinstance(queue, Iterable) and not isinstance(queue, str) else [queue]
    return [validation.queue_name(one) for one in given]
