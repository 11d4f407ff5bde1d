"""Read and write the last tick of each cron entry."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Executable, Text, cast, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, insert

from ..clock import database_now
from ..models import CronEntry, Job, ProducerRow
from ..models.types import UTCDateTime
from .claimed import fetchable, if_representable

# How long a leader whose process is stopped can keep the other nodes from the entries.
LONGEST_IDLE = "10s"


def limit_idle() -> Executable:
    """Let the server end this transaction if its process sends nothing for `LONGEST_IDLE`."""
    setting = literal("idle_in_transaction_session_timeout", Text)
    return select(func.set_config(setting, literal(LONGEST_IDLE, Text), literal(True)))


def enter(name: str, entries: Sequence[str], *, now: datetime | None = None) -> Executable:
    """Insert new entries, with now as their last tick, so that only later ticks enqueue jobs."""
    rows = func.unnest(literal(list(entries), ARRAY(Text))).column_valued("entry")
    return (
        insert(CronEntry)
        .from_select(
            ["name", "entry", "ticked_at"],
            # Two leaders insert the same entries in the same order, so they can't deadlock.
            select(literal(name), rows, database_now(now)).order_by(rows),
        )
        .on_conflict_do_nothing()
    )


def lock(name: str, entries: Sequence[str], *, now: datetime | None = None) -> Executable:
    """Lock the entries, so that no other leader enqueues their jobs, and read them.

    Returns the `entry` and `ticked_at` of each, and the database's `now`.
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
    """When the oldest running node of an instance started; NULL if no node runs."""
    return select(func.min(ProducerRow.started_at)).where(ProducerRow.name == name)


def advance(name: str, ticks: Mapping[str, datetime]) -> Executable:
    """Store the last tick of each entry."""
    statement = insert(CronEntry).values(
        [{"name": name, "entry": entry, "ticked_at": tick} for entry, tick in ticks.items()]
    )
    return statement.on_conflict_do_update(
        index_elements=[CronEntry.name, CronEntry.entry],
        set_={"ticked_at": statement.excluded.ticked_at},
    )


def ticked(name: str, *, now: datetime | None = None) -> Executable:
    """The `ticked_at` of each `entry` of an instance, and the database's `now`.

    A far instant is NULL. An instance without entries returns one row, with NULL for its `entry`.
    """
    time = select(database_now(now).cast(UTCDateTime).label("now")).subquery("clock")
    ticked_at = if_representable(CronEntry.ticked_at).label("ticked_at")
    return select(CronEntry.entry, ticked_at, time.c.now).select_from(
        time.outerjoin(CronEntry, CronEntry.name == name)
    )


def last_job(worker: str, entry: str) -> Executable:
    """The `id`, `state` and `attempted_at` of the newest job of a worker's cron entry."""
    began = fetchable("attempted_at", Job.attempted_at)
    return (
        select(Job.id, cast(Job.state, Text).label("state"), began)
        .where(Job.worker == worker, Job.meta["cron_name"].astext == entry)
        .order_by(Job.id.desc())
        .limit(1)
    )
