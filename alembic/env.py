"""Alembic's environment for the tables of oban_sqla alone.

OBAN_DSN=postgresql://localhost/app alembic upgrade head
alembic -x dsn=postgresql://localhost/app -x prefix=jobs check
"""

import logging
import os
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateSchema

from oban_sqla.migrations.args_index import INDEX
from oban_sqla.migrations.database import engine_for
from oban_sqla.migrations.plugin import NAME as PLUGIN
from oban_sqla.models import metadata

arguments = context.get_x_argument(as_dictionary=True)
prefix = arguments.get("prefix")


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Ignore the tables of an application, and the index that only some databases have."""
    return name in metadata.tables if kind == "table" else name != INDEX


settings: dict[str, Any] = {
    "target_metadata": metadata,
    # This history compares our tables. In other histories, the plugin leaves them out.
    "autogenerate_plugins": ["alembic.autogenerate.*", f"~{PLUGIN}"],
    "compare_type": True,
    "compare_server_default": True,
    "include_name": include_name,
    "version_table": "oban_sqla_alembic_version",
}


def run_offline() -> None:
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        **settings,
    )
    with context.begin_transaction():
        for statement in use_prefix():
            context.execute(statement)
        context.run_migrations()


def run_online(connection: Connection) -> None:
    for statement in use_prefix():
        connection.execute(statement)
        connection.dialect.default_schema_name = prefix
    connection.commit()
    context.configure(connection=connection, **settings)
    with context.begin_transaction():
        context.run_migrations()


def use_prefix() -> list[Any]:
    """Use the prefix as the schema of the tables and of Alembic's version table."""
    if prefix is None:
        return []
    return [
        CreateSchema(prefix, if_not_exists=True),
        select(func.set_config("search_path", func.quote_ident(prefix), False)),
    ]


def connect() -> Connection:
    try:
        return engine().connect()
    except OperationalError as error:
        raise CommandError(f"no connection to the database: {error.orig}") from error


def engine() -> Engine:
    dsn = arguments.get("dsn") or os.environ.get("OBAN_DSN")
    if not dsn:
        raise CommandError("no database was named: set OBAN_DSN, or pass -x dsn=postgresql://...")
    try:
        return engine_for(dsn)
    except ValueError as error:
        raise CommandError(str(error)) from error


if context.config.cmd_opts is not None:  # run from the command line: log the migrations
    logging.basicConfig(format="%(message)s")
    logging.getLogger("alembic.runtime.migration").setLevel(logging.INFO)
if context.is_offline_mode():
    run_offline()
elif given := context.config.attributes.get("connection"):  # run by a test or by another program
    with given.connect() if isinstance(given, Engine) else given as connection:
        run_online(connection)
else:
    with connect() as connection:
        run_online(connection)
