"""NOTIFY: tell listening processes which queues have work, and when the next job is due.

PostgreSQL sends equal payloads of one transaction once, and drops them at a rollback, also at a
rollback to a savepoint. Hence nothing here keeps count.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    Select,
    SelectBase,
    Text,
    bindparam,
    cast,
    column,
    false,
    func,
    literal,
    literal_column,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from ..config.oban_settings import LONGEST_PREFIX
from ..models import JobState, ProducerRow
from ..models.state import STAGEABLE
from ..wakeups import Wakeup
from .states import constant

INSERT = "oban_insert"
"""Oban's channel: `{"queue": name}` for a queue that has available jobs."""
SIGNAL = "oban_signal"
"""Oban's channel for orders to the nodes: `{"action": "pause", "queue": ..., "ident": ...}`."""
ORDER = "oban_order"
"""Our channel: `{"name": instance, "signal": {...}}` for an order that is stored in the table."""
LEADER = "oban_leader"
"""Oban's channel: `{"action": "resign", "node": ..., "name": ...}` says that the lease is free."""
AWAIT = "oban_await"
"""Our channel: `{"ids": [...]}` of jobs that a process waits for."""
DONE = "oban_done"
"""Our channel: `{"ids": [...]}` of jobs that a process waits for, and that have ended."""
FREED = "oban_freed"
"""Our channel: `{"producer": uuid, "queue": name}` for a free slot under the limit of a queue;
without `queue`, under any limit."""
IDS = 300
"""The most ids in one payload: NOTIFY takes less than 8,000 bytes, an id and its comma up to 21."""
SCHEDULE = "oban_schedule"
"""Our channel: `{"at": instant}` of the earliest new scheduled job, or `{}` if that is unknown."""


@lru_cache(maxsize=64)
def announce(*, prefix: str | None = None) -> Select[Any]:
    """Send the notifications in the parameter `news`, which `announcement()` or `about()` makes."""
    rows = (
        func.json_to_recordset(cast(bindparam("news", type_=Text), JSON))
        .table_valued(column("channel", Text), column("payload", Text))
        .render_derived(name="news", with_types=True)
    )
    return notify(select(rows.c.channel, rows.c.payload), prefix)


def announcement(
    wakeup: Wakeup, cancelled: Collection[int] = (), *, freed: bool = False
) -> dict[str, str]:
    """The parameters of `announce` for new jobs, and for jobs `cancelled` while they run.

    freed: whether any limit may have a free slot.
    """
    killed = [(SIGNAL, {"action": "pkill", "job_id": id}) for id in sorted(cancelled)]
    slots: list[tuple[str, Mapping[str, Any]]] = [(FREED, {})] if freed else []
    return _parameters([*_about_new(wakeup), *killed, *slots])


def only_notification(wakeup: Wakeup) -> dict[str, str] | None:
    """The channel and the payload if new jobs make one notification, as most of them do."""
    if wakeup.due_at is None and wakeup.queues is not None and len(wakeup.queues) == 1:
        (queue,) = wakeup.queues
        return {"channel": INSERT, "payload": about_queue(queue)}
    sent = _about_new(wakeup)
    if len(sent) != 1:
        return None
    channel, news = sent[0]
    return {"channel": channel, "payload": json.dumps(news)}


@lru_cache(maxsize=256)
def about_queue(queue: str) -> str:
    """The payload of `INSERT` for a queue."""
    return json.dumps({"queue": queue})


def _about_new(wakeup: Wakeup) -> list[tuple[str, Mapping[str, Any]]]:
    sent: list[tuple[str, Mapping[str, Any]]] = [
        (INSERT, {"queue": queue}) for queue in sorted(wakeup.queues or ())
    ]
    if wakeup.due_at is not None:
        at = wakeup.due_at.astimezone(UTC).isoformat(timespec="microseconds")
        sent.append((SCHEDULE, {"at": at}))
    return sent


def about(channel: str, ids: Sequence[int]) -> dict[str, str]:
    """The parameters of `announce` for jobs that are awaited (`AWAIT`) or have ended (`DONE`)."""
    parts = (ids[start : start + IDS] for start in range(0, len(ids), IDS))
    return _parameters([(channel, {"ids": list(part)}) for part in parts])


def freed(producer: str, queue: str | None) -> dict[str, str]:
    """The parameters of `announce` for a free slot under a limit."""
    named = {} if queue is None else {"queue": queue}
    return _parameters([(FREED, {"producer": producer, **named})])


def ids_in(news: Mapping[str, Any]) -> list[int]:
    """The ids that `about` put into a payload; empty for a payload of another sender."""
    ids = news.get("ids")
    return [id for id in ids if isinstance(id, int)] if isinstance(ids, list) else []


def _parameters(sent: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    # The payloads are nested JSON, not JSON in a string. A column of type text reads their source.
    return {"news": json.dumps([{"channel": channel, "payload": news} for channel, news in sent])}


def sent_with(statement: SelectBase) -> ColumnElement[int]:
    """A column that runs a `notify` statement once, within the statement that selects it."""
    return select(func.count()).select_from(statement.subquery()).scalar_subquery()


def announce_rows(inserted: CTE, prefix: str | None) -> ColumnElement[int]:
    """A column that announces inserted jobs from the rows of the statement itself."""
    available = inserted.alias("available")
    queues = (
        select(available.c.queue)
        .where(available.c.state == constant(JobState.AVAILABLE))
        .distinct()
        .subquery("queues")
    )
    scheduled = inserted.alias("scheduled")
    at = func.to_char(func.min(scheduled.c.scheduled_at), 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
    due = (
        select(literal(SCHEDULE, Text), cast(func.json_build_object(literal("at", Text), at), Text))
        .where(scheduled.c.state.in_([constant(state) for state in STAGEABLE]))
        .having(func.count() > 0)
    )
    return sent_with(notify(union_all(queue_news(queues.c.queue), due), prefix))


@lru_cache(maxsize=64)
def announce_everything(*, prefix: str | None = None) -> Executable:
    """Announce every running queue: for a caller that can't tell which queues have new jobs."""
    return notify(
        union_all(
            queue_news(select(ProducerRow.queue).distinct().subquery().c.queue),
            select(literal(SCHEDULE, Text), literal("{}", Text)),
        ),
        prefix,
    )


def queue_news(queue: ColumnElement[str]) -> SelectBase:
    """A notification about available jobs for each row of a subquery with a queue."""
    payload = func.json_build_object(literal("queue", Text), queue)
    return select(literal(INSERT, Text).label("channel"), cast(payload, Text).label("payload"))


def notify(news: SelectBase, prefix: str | None) -> Select[Any]:
    """Send rows of (channel, payload) on the channels of the schema `prefix`, or of the tables."""
    rows = news.subquery()
    channel, payload = rows.c
    home = schema(prefix)
    return select(_sent(home, channel, payload)).select_from(rows.join(home, true()))


def notify_once(
    channel: ColumnElement[str], payload: ColumnElement[str], prefix: str | None
) -> ColumnElement[Any]:
    """A column that sends one notification, once within the statement that returns it."""
    home = schema(prefix)
    return select(_sent(home, channel, payload)).select_from(home).scalar_subquery()


def _sent(
    home: FromClause, channel: ColumnElement[str], payload: ColumnElement[str]
) -> ColumnElement[Any]:
    return func.pg_notify(home.c.name + literal_column("'.'", Text) + channel, payload)


def schema(prefix: str | None = None) -> FromClause:
    """One row with the name of the tables' schema; no row if it is too long for a channel."""
    if prefix is not None:
        named = select(literal(prefix, Text).label("name"))
        fits = len(prefix.encode()) <= LONGEST_PREFIX
        return (named if fits else named.where(false())).subquery()
    # One function of the server, since a join of its catalogs takes twice the time.
    home = func.pg_identify_object_as_address(
        literal_column("'pg_catalog.pg_class'::regclass"),
        func.to_regclass(literal_column("'oban_jobs'")),
        literal_column("0"),
    ).table_valued(column("object_names", ARRAY(Text)))
    name = home.c.object_names[literal_column("1")]
    longest = literal_column(str(LONGEST_PREFIX), Integer)
    return select(name.label("name")).where(func.octet_length(name) <= longest).subquery()
