"""What is installed, and where."""

from sqlalchemy import Executable, String, Text, cast, column, literal, select, table

from ..models import Control, CronEntry, Job, Leader, Producer
from .announce import schema

TABLES = tuple(model.__tablename__ for model in (Job, Leader, Producer, CronEntry, Control))


def home() -> Executable:
    """The schema in which an unqualified `oban_jobs` is found; no row when there is none."""
    return select(schema().c.name)


def installed(prefix: str) -> Executable:
    """Which of our tables are in the schema `prefix`."""
    tables = table(
        "tables", column("table_name"), column("table_schema"), schema="information_schema"
    )
    name = cast(tables.c.table_name, Text)
    return select(name).where(
        tables.c.table_schema == literal(prefix, String), tables.c.table_name.in_(TABLES)
    )
