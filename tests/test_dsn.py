"""Names of databases: invalid ones, and that no message, log line or repr has a password."""

from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import create_async_engine

from oban_sqla import Oban, settings
from oban_sqla.config import Config
from oban_sqla.contrib.json_log import JsonFormatter
from oban_sqla.dsn import database_url, hide_passwords, listen_target
from oban_sqla.errors import ConfigError
from oban_sqla.events import ServiceFailed, emit
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.notifier import Notifier

MALFORMED = [
    "postgresql://app:s3cr3t@db:port/shop",
    "postgresql://app:s3cr3t@db:5432:5433/shop",
    "postgresql://app:pa@s3cr3t@db/shop",
    "postgresql+psycopg://app:pa@s3cr3t@db/shop",
    "postgresql:///app:s3cr3t@db/shop",
    "postgresql://ap/p:s3cr3t@db/shop",
    "postgresql:/app:s3cr3t@db/shop",
    "app:s3cr3t@db/shop",
    "mysql://app:s3cr3t@db/shop",
    "postgresql://app:s3cr3t@db/shop?prepare_threshold=s3cr3t",
    "postgresql://app:pw@db:p%40s3cr3t/shop?password=s3cr3t",
]
# Malformed connection strings of libpq.
STRINGS = [
    "host=db password=s3cr3t nonsense",
    "host=db s3cr3t",
    "host=db password='s3cr3t",
    "host=db pasword=s3cr3t",
    "db s3cr3t",
]


@pytest.mark.parametrize("dsn", [*MALFORMED, *STRINGS, "host=localhost password=s3cr3t"])
def test_a_dsn_that_is_refused_is_not_shown(dsn: str) -> None:
    with pytest.raises(ValueError, match="the DSN") as raised:
        Oban(dsn)
    assert "s3cr3t" not in repr(raised.value)
    with pytest.raises(ConfigError) as listed:
        settings.load(dsn=dsn)
    assert "s3cr3t" not in repr(listed.value)


@pytest.mark.parametrize("dsn", [*MALFORMED, *STRINGS, "", " ", "host=\x00", 5])
def test_a_listen_dsn_is_refused_at_the_start_and_is_not_shown(dsn: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        Oban("postgresql://localhost/shop", listen_dsn=dsn)
    assert [setting for setting, _ in raised.value.complaints] == ["listen_dsn"]
    assert "s3cr3t" not in repr(raised.value)


@pytest.mark.parametrize(
    ("dsn", "driver"),
    [
        ("postgresql://app:s3cr3t@db/shop", "psycopg"),
        ("postgresql+psycopg://app:s3cr3t@db/shop?sslmode=require", "psycopg"),
        ("postgresql+psycopg2://app:s3cr3t@db/shop", "psycopg"),
        ("postgresql+asyncpg://app:s3cr3t@db/shop?ssl=require", "asyncpg"),
        ("postgresql://app:s3%40cr3t@db/shop", "psycopg"),
        ("host=db1,db2 port=5432,5433 password=s3cr3t dbname=shop", "psycopg"),
    ],
)
def test_a_password_is_in_no_repr(dsn: str, driver: str) -> None:
    assert listen_target(dsn)[0].get_driver_name() == driver
    config = Config.check(listen_dsn=dsn)
    assert config.listen_dsn == dsn
    oban = Oban("postgresql://app:s3cr3t@db/shop", listen_dsn=dsn)
    loaded = settings.load(dsn="postgresql://app:s3cr3t@db/shop", listen_dsn=dsn)
    for shown in (config, oban, oban._database, loaded, loaded.found):
        assert "cr3t" not in repr(shown)


def test_a_connection_string_overrides_the_defaults_of_its_connection() -> None:
    _, arguments = listen_target("host=db connect_timeout=3")
    assert arguments["connect_timeout"] == "3"
    assert arguments["tcp_user_timeout"] == 15_000


def test_a_url_without_a_driver_means_psycopg() -> None:
    assert database_url("postgresql://localhost/a").drivername == "postgresql+psycopg"
    assert database_url("postgres://localhost/a").drivername == "postgresql+psycopg"
    assert database_url("postgresql+asyncpg://localhost/a").drivername == "postgresql+asyncpg"


def test_an_escaped_password_may_have_any_characters() -> None:
    url = URL.create("postgresql", "app", "a@b/c:d e?f#g", "db", database="shop")
    found = database_url(url.render_as_string(hide_password=False))
    assert (found.password, found.host, found.database) == ("a@b/c:d e?f#g", "db", "shop")


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("no postgresql://app:a@b:s3cr3t@db/shop", "no postgresql://app:***@db/shop"),
        ("a URL like postgresql://user:password@host:5432/database",) * 2,
        ("host=db password=s3cr3t port=1", "host=db password=*** port=1"),
        ("password='s3 cr\\'3t' x", "password=*** x"),
        (
            "postgresql://db/shop?user=a&password=s3cr3t&x=1",
            "postgresql://db/shop?user=a&password=***&x=1",
        ),
        ("{'password': 's3cr3t'}", "{'password': ***}"),
        ("PGPASSWORD=s3cr3t", "PGPASSWORD=***"),
        ('password authentication failed for user "app"',) * 2,
    ],
)
def test_passwords_are_hidden_in_texts(text: str, hidden: str) -> None:
    assert hide_passwords(text) == hidden


def test_the_log_hides_the_password_of_an_error(caplog: pytest.LogCaptureFixture) -> None:
    oban = Oban("postgresql://localhost/shop")
    error = OSError("can't reach postgresql://app:s3cr3t@db/shop")
    emit(oban, "service_failed", ServiceFailed("stager", error))
    (record,) = caplog.records
    assert "postgresql://app:***@db/shop" in record.message
    assert "s3cr3t" not in JsonFormatter().format(record)
    caplog.clear()


async def test_a_lost_notifier_shows_no_password() -> None:
    async def connect() -> Any:
        raise OSError("can't reach postgresql://app:s3cr3t@db/shop")

    engine = create_async_engine("postgresql+psycopg://", async_creator=connect)
    heard: list[Any] = []
    notifier = Notifier(
        Database(engine, "public"),
        lambda name, data: heard.append(data),
        channels={},
        on_change=lambda: None,
        listen_dsn=None,
    )
    with pytest.raises(OSError, match="can't reach") as raised:
        await notifier.run_once()
    notifier.failed(raised.value)
    assert "app:***@db" in heard[0].reason
