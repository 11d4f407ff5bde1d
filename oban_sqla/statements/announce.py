"""NOTIFY: tell the processes that listen which queues have work, and when the next job is due.

Equal payloads of one transaction are sent once, and a rollback, to a savepoint too, unsends them:
that is PostgreSQL's own rule, so nothing here keeps count.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    FromClause,
    Select,
    SelectBase,
    Text,
    bindparam,
    cast,
    column,
    false,
    func,
    literal,
    select,
    table,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..config import LONGEST_PREFIX
from ..models import Producer

INSERT = "oban_insert"
"""Oban's channel: `{"queue": name}` for a queue that has available jobs."""
SIGNAL = "oban_signal"
"""Oban's channel for orders to the nodes: `{"action": "pause", "queue": ..., "ident": ...}`."""
ORDER = "oban_order"
"""Our channel: `{"name": instance, "signal": {...}}` before a signal that is kept in the table."""
LEADER = "oban_leader"
"""Oban's channel for `{"action": "resign", "node": ..., "name": ...}`: the lease is free."""
AWAIT = "oban_await"
"""Our channel: `{"ids": [...]}` for jobs that somebody waits for."""
DONE = "oban_done"
"""Our channel: `{"ids": [...]}` for jobs that somebody waits for, and whose outcome is written."""
IDS = 300
"""How many ids one payload holds: it has less than 8,000 bytes, an id and its comma up to 21."""
SCHEDULE = "oban_schedule"
"""Our channel: `{"at": instant}` for the earliest new scheduled job, `{}` when it is not known."""


@lru_cache(maxsize=64)
def announce(*, prefix: str | None = None) -> Executable:
    """Announce the `announcement()` that it is executed with."""
    rows = (
        func.unnest(
            bindparam("channels", type_=ARRAY(Text)), bindparam("payloads", type_=ARRAY(Text))
        )
        .table_valued(column("channel", Text), column("payload", Text))
        .render_derived(name="news")
    )
    return notify(select(rows.c.channel, rows.c.payload), prefix)


def announcement(
    queues: Collection[str], due_at: datetime | None = None, cancelled: Collection[int] = ()
) -> dict[str, list[str]]:
    """The parameters of `announce`: available jobs in `queues`, a scheduled one at `due_at`.

    And the ids of those that are `cancelled` while they run.
    """
    sent = [(INSERT, json.dumps({"queue": queue})) for queue in sorted(queues)]
    sent += [(SIGNAL, json.dumps({"action": "pkill", "job_id": id})) for id in sorted(cancelled)]
    if due_at is not None:
        at = due_at.astimezone(UTC).isoformat(timespec="microseconds")
        sent.append((SCHEDULE, json.dumps({"at": at})))
    return _parameters(sent)


def about(channel: str, ids: Sequence[int]) -> dict[str, list[str]]:
    """The parameters of `announce`: these jobs are awaited (`AWAIT`), or written (`DONE`)."""
    parts = (ids[start : start + IDS] for start in range(0, len(ids), IDS))
    return _parameters([(channel, json.dumps({"ids": list(part)})) for part in parts])


def ids_in(news: Mapping[str, Any]) -> list[int]:
    """The ids that `about` put into news; none for what anybody else put there."""
    ids = news.get("ids")
    return [id for id in ids if isinstance(id, int)] if isinstance(ids, list) else []


def _parameters(sent: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    return {
        "channels": [channel for channel, _ in sent],
        "payloads": [payload for _, payload in sent],
    }


@lru_cache(maxsize=64)
def announce_everything(*, prefix: str | None = None) -> Executable:
    """Announce every queue that some node runs, when it is not known which have new jobs."""
    return notify(
        union_all(
            queue_news(select(Producer.queue).distinct().subquery().c.queue),
            select(literal(SCHEDULE, Text), literal("{}", Text)),
        ),
        prefix,
    )


def queue_news(queue: ColumnElement[str]) -> SelectBase:
    """The rows of news about available jobs, one for each queue of a subquery."""
    payload = func.json_build_object(literal("queue", Text), queue)
    return select(literal(INSERT, Text).label("channel"), cast(payload, Text).label("payload"))


def notify(news: SelectBase, prefix: str | None) -> Select[Any]:
    """Send rows of (channel, payload), in the schema `prefix` or in that of the tables."""
    rows = news.subquery()
    channel, payload = rows.c
    home = schema(prefix)
    return select(func.pg_notify(home.c.name + "." + channel, payload)).select_from(
        rows.join(home, true())
    )


def schema(prefix: str | None = None) -> FromClause:
    """One row, the name of the schema that holds the tables; no row where no channel could be."""
    if prefix is not None:
        named = select(literal(prefix, Text).label("name"))
        fits = len(prefix.encode()) <= LONGEST_PREFIX
        return (named if fits else named.where(false())).subquery()
    relation = table("pg_class", column("oid"), column("relnamespace"), schema="pg_catalog")
    namespace = table("pg_namespace", column("oid"), column("nspname"), schema="pg_catalog")
    name = cast(namespace.c.nspname, Text)
    return (
        select(name.label("name"))
        .select_from(relation.join(namespace, namespace.c.oid == relation.c.relnamespace))
        .where(relation.c.oid == func.to_regclass("oban_jobs"))
        .where(func.octet_length(name) <= LONGEST_PREFIX)
        .subquery()
    )
