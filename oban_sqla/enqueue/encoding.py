"""Refuse jobs that a connection can't store, before anything is sent."""

import codecs
import json
from collections.abc import Iterable
from typing import Any

import psycopg
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from ..models.instrumentation import values_of
from ..statements.insert import FIELDS
from .batch import Batch
from .read_only import refuse_read_only

# Python's names of encodings, by PostgreSQL's names, if they differ.
_CODECS = {"SQL_ASCII": "ascii", "KOI8R": "koi8_r", "KOI8U": "koi8_u", "LATIN9": "iso8859_15"}


def refuse_unstorable(conn: object, batches: Iterable[Batch]) -> None:
    """`ValueError` for a job with characters that the database of a connection can't hold.

    `ObanError` if its transaction is read-only. A failed statement would break the caller's
    transaction. UTF8, the usual encoding, holds all characters. Nothing is checked if the
    connection does not tell its encoding.
    """
    driver = _driver(conn)
    refuse_read_only(driver)
    name = _server_encoding(driver)
    if name is None or name == "UTF8":
        return
    try:
        codec = codecs.lookup(_CODECS.get(name, name.replace("WIN", "cp")))
    except LookupError:
        return
    for batch in batches:
        for job in batch.jobs:
            for field in FIELDS:
                _check(field, values_of(job)[field], name, codec)


def _check(field: str, value: Any, name: str, codec: codecs.CodecInfo) -> None:
    try:
        codec.encode(json.dumps(value, ensure_ascii=False))
    except UnicodeEncodeError as error:
        character = error.object[error.start]
        raise ValueError(
            f"{field} has the character {character!r}, which the database can't hold: its encoding"
            f" is {name}; store the jobs in a database with ENCODING 'UTF8'"
        ) from None


def _driver(conn: object) -> Any:
    """The driver's connection behind any connection."""
    if isinstance(conn, AsyncConnection):
        conn = conn.sync_connection
    if isinstance(conn, Connection):
        pooled = conn.connection
        driver = pooled.driver_connection
        # Only SQLAlchemy's adapter of asyncpg knows the transaction.
        return driver if isinstance(driver, psycopg.AsyncConnection) else pooled.dbapi_connection
    if isinstance(conn, psycopg.Cursor | psycopg.AsyncCursor):
        return conn.connection
    return conn


def _server_encoding(driver: Any) -> str | None:
    if isinstance(driver, psycopg.Connection | psycopg.AsyncConnection):
        return driver.info.parameter_status("server_encoding")
    driver = getattr(driver, "driver_connection", driver)
    if hasattr(driver, "get_settings"):  # of asyncpg
        encoding: str | None = getattr(driver.get_settings(), "server_encoding", None)
        return encoding
    if hasattr(driver, "get_parameter_status"):  # of psycopg2
        return str(driver.get_parameter_status("server_encoding"))
    return None
