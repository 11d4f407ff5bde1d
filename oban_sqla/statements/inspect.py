"""Look up the installed tables, their schema, and the privileges of the role."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    Select,
    Text,
    case,
    cast,
    column,
    func,
    literal,
    select,
    table,
    text,
    union_all,
)

from ..models import CronEntry, Job, LeaderLease, ProducerRow, QueueOrder
from .announce import schema

TABLES = tuple(
    model.__tablename__ for model in (Job, LeaderLease, ProducerRow, CronEntry, QueueOrder)
)

RUNNING = ("SELECT", "INSERT", "UPDATE", "DELETE")
"""The privileges that the role of a node needs on each table."""


def home() -> Executable:
    """The schema in which the search path finds `oban_jobs`; no row if it finds none."""
    return select(schema().c.name)


def hidden_homes() -> Executable:
    """The schemas that have an `oban_jobs`, but that the role may not use."""
    tables = _catalog("pg_class", "relname", "relnamespace")
    may_use = func.has_schema_privilege(tables.c.relnamespace, "USAGE")
    hidden = _names(tables, "relnamespace").where(tables.c.relname == Job.__tablename__, ~may_use)
    return hidden.order_by(text("1"))


def home_of(relation: str) -> Select[Any]:
    """The schema in which the search path finds a table; no row if it finds none."""
    tables = _catalog("pg_class", "oid", "relnamespace")
    return _names(tables, "relnamespace").where(tables.c.oid == func.to_regclass(relation))


def installed(prefix: str, privileges: Sequence[str] = ()) -> Executable:
    """The `name` of each of our tables in the schema `prefix`, and the privileges that are missing.

    `lacking` is a text such as "SELECT, INSERT". It is empty if the role has all `privileges` on
    the table and may use its schema.
    """
    tables = _catalog("pg_class", "oid", "relname", "relnamespace")
    schemas = _catalog("pg_namespace", "oid", "nspname")
    lacking: list[ColumnElement[Any]] = [
        case((func.has_table_privilege(tables.c.oid, one), None), else_=literal(one, Text))
        for one in privileges
    ]
    usage = case(
        (func.has_schema_privilege(schemas.c.oid, "USAGE"), None),
        else_=literal("USAGE of the schema", Text),
    )
    return (
        select(
            cast(tables.c.relname, Text).label("name"),
            func.concat_ws(", ", usage, *lacking).label("lacking"),
        )
        .join(schemas, schemas.c.oid == tables.c.relnamespace)
        .where(schemas.c.nspname == prefix, tables.c.relname.in_(TABLES))
    )


def connection_settings() -> Executable:
    """The encoding of the text that the server and the connection exchange, and if it is read-only.

    A connection to a standby does not count as read-only: the standby may be promoted.
    """
    read_only = func.current_setting("transaction_read_only") == "on"
    return select(func.current_setting("client_encoding"), read_only & ~func.pg_is_in_recovery())


def current_role() -> Executable:
    """The role of the connection."""
    return select(cast(func.current_user(), Text))


def parts(prefix: str) -> Executable:
    """The objects in the schema `prefix`, named as in `models.parts`: `table oban_jobs`."""
    classes = _catalog("pg_class", "relname", "relnamespace", "relkind")
    constraints = _catalog("pg_constraint", "conname", "connamespace")
    functions = _catalog("pg_proc", "proname", "pronamespace")
    tables = _catalog("pg_class", "oid", "relnamespace")
    triggers = _catalog("pg_trigger", "tgname", "tgrelid")
    of_triggers = tables.join(triggers, triggers.c.tgrelid == tables.c.oid)
    kind = case((classes.c.relkind.in_(["r", "p"]), "table"), else_="index")
    found = [
        (kind, classes, classes.c.relname, classes.c.relnamespace),
        (literal("constraint"), constraints, constraints.c.conname, constraints.c.connamespace),
        (literal("function"), functions, functions.c.proname, functions.c.pronamespace),
        (literal("trigger"), of_triggers, triggers.c.tgname, tables.c.relnamespace),
    ]
    schemas = _catalog("pg_namespace", "oid", "nspname")
    return union_all(
        *(
            select(func.concat(cast(kind, Text), " ", cast(name, Text)))
            .select_from(source)
            .join(schemas, schemas.c.oid == schema)
            .where(schemas.c.nspname == prefix, name.like("oban%"))
            for kind, source, name, schema in found
        )
    )


def errors_as_array(prefix: str) -> Select[Any]:
    """Whether `oban_jobs.errors` in the schema `prefix` is a `jsonb[]`, as in Oban for Elixir."""
    tables = _catalog("pg_class", "oid", "relname", "relnamespace")
    columns = _catalog("pg_attribute", "attrelid", "attname", "atttypid")
    types = _catalog("pg_type", "oid", "typname")
    found = (
        _names(tables, "relnamespace", prefix)
        .join(columns, columns.c.attrelid == tables.c.oid)
        .join(types, types.c.oid == columns.c.atttypid)
        .where(tables.c.relname == Job.__tablename__, columns.c.attname == Job.errors.key)
        .where(types.c.typname == "_jsonb")
    )
    return select(found.exists())


def _names(tables: Any, schema: str, prefix: str | None = None) -> Select[Any]:
    schemas = _catalog("pg_namespace", "oid", "nspname")
    names = select(cast(schemas.c.nspname, Text)).join(tables, tables.c[schema] == schemas.c.oid)
    return names if prefix is None else names.where(schemas.c.nspname == prefix)


def _catalog(name: str, *columns: str) -> Any:
    return table(name, *map(column, columns), schema="pg_catalog")


def in_recovery() -> Select[bool]:
    """Whether the server is a standby."""
    return select(func.pg_is_in_recovery())
