"""The state of cron: the entries, their next and last ticks, and their last jobs."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ..runtime.cron import NEVER
from ..runtime.database import Database
from ..statements.cron import last_job, ticked
from ..workers.cron import REBOOT, Cron
from ..workers.registry import with_cron


@dataclass(frozen=True, slots=True)
class EntryStatus:
    """A cron entry of a worker that this process has imported."""

    worker: str
    expr: str
    timezone: str
    """The time zone of the expression."""
    queue: str
    next_tick: datetime | None
    """`None` for `@reboot`."""
    last_tick: datetime | None
    """The last tick that a leader handled; `None` if a leader has handled none."""
    last_job: int | None
    """The id of the last job of the entry, if the job still exists."""
    last_state: str | None
    last_run: datetime | None
    """When the last attempt of the last job started."""


async def cron_status(database: Database, *, instance: str, timezone: str) -> list[EntryStatus]:
    """The cron entries of the imported workers, in order; `SchemaMissingError` without tables.

    timezone: the time zone of the instance, for entries without one.
    """
    await database.verify()
    rows = await database.fetch(ticked(instance))
    last_ticks = {row.entry: row.ticked_at for row in rows if row.entry is not None}
    now: datetime = rows[0].now.astimezone(UTC)
    found = []
    for worker in with_cron():
        cron = worker.cron
        assert cron is not None
        label = cron.label(worker.name)
        last = last_ticks.get(label, NEVER)
        jobs = await database.fetch(last_job(worker.name, label))
        job_id, state, run_at = jobs[0] if jobs else (None, None, None)
        found.append(
            EntryStatus(
                worker.name,
                cron.expr,
                cron.timezone or timezone,
                worker.queue,
                None if cron.expr == REBOOT else next(cron.after(now, timezone), None),
                last if _is_tick(cron, last, timezone) else None,
                job_id,
                state,
                run_at,
            )
        )
    return sorted(found, key=lambda entry: entry.worker)


def _is_tick(cron: Cron, instant: datetime | None, timezone: str) -> bool:
    """Whether an instant is a tick. The leader also stores when it first saw the entry."""
    if instant is None or instant == NEVER or cron.expr == REBOOT:
        return instant not in (None, NEVER)
    try:
        return next(cron.after(instant - timedelta(seconds=1), timezone), None) == instant
    except OverflowError:
        return False  # Another program may have stored the first or the last day that Python knows.
