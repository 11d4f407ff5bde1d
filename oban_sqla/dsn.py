"""Parse the URL or the connection string of a database, without a password in any message."""

import re
from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_BACKENDS = ("postgresql", "postgres")

# Without these settings, Linux notices after a quarter of an hour that the host of the server has
# vanished, and libpq tries the next host of a list after more than two minutes.
_NOTICE_LOSS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}

# The password of a URL may contain @, so it ends at the last @ of the word. The example in our own
# messages, with the word "password", stays readable.
_IN_URL = re.compile(r"(?<=://)([^\s/:@]*):(?!password@host:)\S*@")
_BY_NAME = re.compile(
    r"""(pass(?:word|wd|phrase)?|pwd)(["']?\s*[=:]\s*)('(?:[^'\\]|\\.)*'|"[^"]*"|[^\s&;,'"]+)""",
    re.IGNORECASE,
)


def database_url(given: URL | str, name: str = "the DSN") -> URL:
    """The URL of a PostgreSQL, with psycopg as the default driver; `ValueError` if it is invalid.

    The message does not show an invalid URL, which may contain a password.
    """
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise ValueError(
            f"{name} is not a URL of the form postgresql://user:password@host:5432/database"
        ) from None
    if url.get_backend_name() not in _BACKENDS:
        raise ValueError(f"{name} must start with postgresql://, not {url.drivername}://")
    if "@" in (url.host or "") or (url.username is None and "@" in (url.database or "")):
        # The part before the @ belongs to the password, and later messages would show it.
        raise ValueError(
            f"{name} has an @ in its host or database: write @ as %40, / as %2F and : as %3A in a"
            " user or a password"
        )
    # SQLAlchemy's default driver would be psycopg2.
    return url if "+" in url.drivername else url.set(drivername="postgresql+psycopg")


def connect_arguments(url: URL) -> tuple[URL, dict[str, Any]]:
    """Split a URL into a URL without `prepare_threshold`, and arguments for psycopg's `connect`.

    `prepare_threshold` must be `none` behind a transaction pooler that does not support prepared
    statements. `ValueError` if it is neither `none` nor a number. The client encoding is UTF-8:
    psycopg can't read JSON in another encoding. A connection whose server has vanished breaks after
    20 seconds. The URL may say otherwise.
    """
    if url.get_driver_name() != "psycopg":
        return url, {}
    defaults = {"client_encoding": "utf8", **_NOTICE_LOSS}
    arguments: dict[str, Any] = {
        name: value for name, value in defaults.items() if name not in url.query
    }
    given = url.query.get("prepare_threshold")
    if given is None:
        return url, arguments
    if given == "none":
        arguments["prepare_threshold"] = None
    elif isinstance(given, str) and given.isdecimal():
        arguments["prepare_threshold"] = int(given)
    else:
        raise ValueError("prepare_threshold in the DSN must be a number or none")
    return url.difference_update_query(["prepare_threshold"]), arguments


def listen_target(given: object) -> tuple[URL, dict[str, Any]]:
    """The URL of the connection for LISTEN, and more arguments for `connect`.

    `given` is a URL, as for `database_url`, or a connection string of libpq, such as
    `host=db1,db2 dbname=shop`. The driver is asyncpg if the URL names it, otherwise psycopg.
    `ValueError` for anything else. Its message does not show the text.
    """
    if not isinstance(given, str) or not given.strip() or "\x00" in given:
        raise ValueError("listen_dsn must be a connection string that is not blank")
    if "://" in given:
        url = database_url(given, "listen_dsn")
        if url.get_driver_name() != "asyncpg":
            url = url.set(drivername="postgresql+psycopg")
        return connect_arguments(url)
    try:
        return URL.create("postgresql+psycopg"), {**_NOTICE_LOSS, **conninfo_to_dict(given)}
    except (ProgrammingError, UnicodeError):
        raise ValueError(
            "listen_dsn is neither a URL of the form postgresql://user:password@host:5432/database,"
            " nor a connection string like 'host=db dbname=shop'"
        ) from None


def hide_passwords(text: str) -> str:
    """Replace the passwords of all URLs and connection strings in a text by ***."""
    return _BY_NAME.sub(r"\1\2***", _IN_URL.sub(r"\1:***@", text))
