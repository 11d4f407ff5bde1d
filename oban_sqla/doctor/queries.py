"""Queries of the doctor: the server's statistics, transactions, connections and notifications."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CHAR,
    BigInteger,
    DateTime,
    Executable,
    Float,
    Integer,
    Text,
    and_,
    any_,
    cast,
    column,
    func,
    literal,
    null,
    or_,
    select,
    table,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..clock import database_now, seconds
from ..models import Job, JobState, ProducerRow, QueueOrder
from ..models.state import FINISHED
from ..models.version import SchemaVersion
from ..statements.claim import CLAIMER
from ..statements.heartbeat import EXPIRY, FOREIGN_EXPIRY
from ..statements.states import state_in


def version() -> Executable:
    """The version of the schema; NULL if oban_sqla has not installed it."""
    return select(func.max(SchemaVersion.version))


def clock() -> Executable:
    """The current time of the server's clock."""
    return select(func.clock_timestamp(type_=DateTime(timezone=True)))


def vacuum(prefix: str) -> Executable:
    """The `live` and `dead` rows of `oban_jobs`, and the seconds since its last vacuum.

    Also whether autovacuum is on for this table (`automatic`).
    """
    tables = _catalog(
        "pg_stat_all_tables",
        *("relid", "schemaname", "relname", "n_live_tup", "n_dead_tup"),
        *("last_vacuum", "last_autovacuum"),
    )
    classes = _catalog("pg_class", "oid", "reloptions")
    last = func.greatest(tables.c.last_vacuum, tables.c.last_autovacuum)
    options = func.coalesce(cast(classes.c.reloptions, ARRAY(Text)), cast([], ARRAY(Text)))
    automatic = and_(
        func.current_setting("autovacuum") == "on",
        ~(literal("autovacuum_enabled=false", Text) == any_(options)),
    )
    return (
        select(
            tables.c.n_live_tup.label("live"),
            tables.c.n_dead_tup.label("dead"),
            seconds(func.now() - last).label("vacuumed_ago"),
            automatic.label("automatic"),
        )
        .join(classes, classes.c.oid == tables.c.relid)
        .where(
            tables.c.schemaname == literal(prefix, Text),
            tables.c.relname == literal(Job.__tablename__, Text),
        )
    )


def horizon() -> Executable:
    """The transactions and slots that keep dead rows from being removed, the oldest first.

    Returns the `kind` ("session", "prepared" or "slot"), the `id`, for a session a description
    (`what`), the `seconds` since its start (NULL if unknown), and its `age` in transactions.
    """
    sessions = _catalog(
        "pg_stat_activity",
        *("pid", "datname", "usename", "application_name", "state", "backend_type"),
        *("xact_start", "backend_xid", "backend_xmin"),
    )
    prepared = _catalog("pg_prepared_xacts", "transaction", "gid", "prepared", "database")
    slots = _catalog("pg_replication_slots", "slot_name", "xmin")
    here = func.current_database()
    held = func.coalesce(sessions.c.backend_xmin, sessions.c.backend_xid)
    what = func.concat_ws(
        ", ", sessions.c.usename, func.nullif(sessions.c.application_name, ""), sessions.c.state
    )
    rows = union_all(
        select(
            literal("session", Text).label("kind"),
            cast(sessions.c.pid, Text).label("id"),
            cast(what, Text).label("what"),
            seconds(func.clock_timestamp() - sessions.c.xact_start).label("seconds"),
            func.age(held, type_=BigInteger).label("age"),
        ).where(
            sessions.c.datname == here,
            sessions.c.pid != func.pg_backend_pid(),
            sessions.c.backend_type != "autovacuum worker",
            held.is_not(None),
        ),
        select(
            literal("prepared", Text),
            cast(prepared.c.gid, Text),
            literal("", Text),
            seconds(func.clock_timestamp() - prepared.c.prepared),
            func.age(prepared.c.transaction, type_=BigInteger),
        ).where(prepared.c.database == here),
        select(
            literal("slot", Text),
            cast(slots.c.slot_name, Text),
            literal("", Text),
            cast(null(), Float),
            func.age(slots.c.xmin, type_=BigInteger),
        ).where(slots.c.xmin.is_not(None)),
    ).subquery()
    return select(rows).order_by(rows.c.seconds.desc().nulls_last(), rows.c.age.desc())


def sees_all() -> Executable:
    """Whether the role may see the activity of other roles' sessions."""
    return select(func.pg_has_role("pg_read_all_stats", "MEMBER"))


def notifications() -> Executable:
    """The fill level of the notification queue, from 0 to 1."""
    return select(cast(func.pg_notification_queue_usage(), Float))


def connections() -> Executable:
    """The most connections of the server (`most`), and how many are `reserved` and `used`."""
    databases = _catalog("pg_stat_database", "datname", "numbackends")
    used = select(func.sum(databases.c.numbackends)).where(databases.c.datname.is_not(None))
    reserved = [
        func.coalesce(cast(func.current_setting(name, True), Integer), 0)
        for name in ("superuser_reserved_connections", "reserved_connections")
    ]
    return select(
        cast(func.current_setting("max_connections"), Integer).label("most"),
        (reserved[0] + reserved[1]).label("reserved"),
        cast(used.scalar_subquery(), Integer).label("used"),
    )


def orphans(*, rescue_after: float, now: datetime | None = None) -> Executable:
    """The nodes (`lost`) of producers without a row, and the `count` of their executing jobs.

    Jobs on nodes of another Oban count after `rescue_after` seconds, as for rescue, also if the
    rows of these nodes have expired.
    """
    claimer, ours = Job.attempted_by[2], Job.attempted_by[3]
    time = database_now(now)
    old = seconds(time - func.coalesce(Job.attempted_at, Job.scheduled_at)) > rescue_after
    silent = and_(
        ~ProducerRow.meta.has_key(EXPIRY), seconds(time - ProducerRow.updated_at) >= FOREIGN_EXPIRY
    )
    return (
        select(Job.attempted_by[1].label("lost"), func.count().label("count"))
        .outerjoin(ProducerRow, cast(ProducerRow.uuid, Text) == claimer)
        .where(
            state_in(JobState.EXECUTING),
            or_(ProducerRow.uuid.is_(None), silent),
            or_(ours.is_not_distinct_from(literal(CLAIMER, Text)), old),
        )
        .group_by("lost")
        .order_by("lost")
    )


def malformed(most: int) -> Executable:
    """At most `most` unfinished jobs whose `args` or `meta` are not a JSON object."""
    kinds = [func.jsonb_typeof(value) for value in (Job.args, Job.meta)]
    return (
        select(Job.id)
        .where(~state_in(*FINISHED), or_(*(kind != literal("object", Text) for kind in kinds)))
        .order_by(Job.id)
        .limit(most)
    )


def obstacles(prefix: str) -> Executable:
    """The foreign keys (`name` and `table`) that forbid the deletion of jobs."""
    keys = _catalog("pg_constraint", "conname", "contype", "conrelid", "confrelid", "confdeltype")
    referring = _catalog("pg_class", "oid", "relname").alias("referring")
    tables = _catalog("pg_class", "oid", "relname", "relnamespace").alias("referred")
    schemas = _catalog("pg_namespace", "oid", "nspname")
    return (
        select(
            cast(keys.c.conname, Text).label("name"), cast(referring.c.relname, Text).label("table")
        )
        .join(referring, referring.c.oid == keys.c.conrelid)
        .join(tables, tables.c.oid == keys.c.confrelid)
        .join(schemas, schemas.c.oid == tables.c.relnamespace)
        .where(
            keys.c.contype == literal("f", CHAR),
            # NO ACTION and RESTRICT
            keys.c.confdeltype.in_([literal("a", CHAR), literal("r", CHAR)]),
            schemas.c.nspname == literal(prefix, Text),
            tables.c.relname == literal(Job.__tablename__, Text),
        )
        .order_by("table", "name")
    )


def orders(*, now: datetime | None = None) -> Executable:
    """The orders to queues, and how many seconds ago each was given."""
    return select(
        QueueOrder.name,
        QueueOrder.node,
        QueueOrder.queue,
        QueueOrder.setting,
        QueueOrder.value["action"].astext.label("action"),
        seconds(database_now(now) - QueueOrder.changed_at).label("seconds_ago"),
    ).order_by(QueueOrder.name, QueueOrder.queue, QueueOrder.node)


def _catalog(name: str, *columns: str) -> Any:
    return table(name, *map(column, columns), schema="pg_catalog")
