"""The ticks of cron: how far each entry has come, locked while its jobs are enqueued."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Executable, Text, cast, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, insert

from ..clock import database_now
from ..models import CronEntry, Job, ProducerRow
from ..models.types import UTCDateTime


def enter(name: str, entries: Sequence[str], *, now: datetime | None = None) -> Executable:
    """Enter the entries that are new: as if their last tick were now, so that none is missed."""
    rows = func.unnest(literal(list(entries), ARRAY(Text))).column_valued("entry")
    return (
        insert(CronEntry)
        .from_select(
            ["name", "entry", "ticked_at"],
            # In order, as whoever else enters the same waits for the same row first.
            select(literal(name), rows, database_now(now)).order_by(rows),
        )
        .on_conflict_do_nothing()
    )


def lock(name: str, entries: Sequence[str], *, now: datetime | None = None) -> Executable:
    """Lock the entries, so that no other leader enqueues their ticks, and read them.

    Returns for each its `entry`, its `ticked_at`, and the database's `now`.
    """
    return (
        select(
            CronEntry.entry,
            CronEntry.ticked_at,
            database_now(now).cast(UTCDateTime).label("now"),
        )
        .where(CronEntry.name == name, CronEntry.entry.in_(entries))
        .order_by(CronEntry.entry)
        .with_for_update()
    )


def booted(name: str) -> Executable:
    """When the oldest node started that is there, NULL for none."""
    return select(func.min(ProducerRow.started_at)).where(ProducerRow.name == name)


def advance(name: str, ticks: Mapping[str, datetime]) -> Executable:
    """Note the last tick of each entry."""
    statement = insert(CronEntry).values(
        [{"name": name, "entry": entry, "ticked_at": tick} for entry, tick in ticks.items()]
    )
    return statement.on_conflict_do_update(
        index_elements=[CronEntry.name, CronEntry.entry],
        set_={"ticked_at": statement.excluded.ticked_at},
    )


def ticked(name: str, *, now: datetime | None = None) -> Executable:
    """The `ticked_at` of each `entry` of an instance, and the database's `now`.

    An instance without entries has one row, with NULL for its entry.
    """
    time = select(database_now(now).cast(UTCDateTime).label("now")).subquery("clock")
    return select(CronEntry.entry, CronEntry.ticked_at, time.c.now).select_from(
        time.outerjoin(CronEntry, CronEntry.name == name)
    )


def last_job(worker: str, entry: str) -> Executable:
    """The `id`, `state` and `attempted_at` of the newest job that an entry of a worker enqueued."""
    return (
        select(Job.id, cast(Job.state, Text).label("state"), Job.attempted_at)
        .where(Job.worker == worker, Job.meta["cron_name"].astext == entry)
        .order_by(Job.id.desc())
        .limit(1)
    )
