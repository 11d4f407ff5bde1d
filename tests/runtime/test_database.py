"""The database of an instance: what its URL may say."""

import pytest
from sqlalchemy import make_url

from oban_sqla import Oban
from oban_sqla.migrations.database import engine_for
from oban_sqla.runtime.database import connect_arguments

URL = "postgresql+psycopg://ann:secret@db/shop?sslmode=require"


@pytest.mark.parametrize(("given", "threshold"), [("none", None), ("0", 0), ("12", 12)])
def test_a_url_may_say_when_psycopg_prepares(given: str, threshold: int | None) -> None:
    url, arguments = connect_arguments(make_url(f"{URL}&prepare_threshold={given}"))
    assert url == make_url(URL)
    assert arguments == {"prepare_threshold": threshold}


@pytest.mark.parametrize(
    "url",
    [URL, "postgresql+asyncpg://ann@db/shop?prepare_threshold=none"],
    ids=["plain", "asyncpg"],
)
def test_other_urls_are_left_alone(url: str) -> None:
    assert connect_arguments(make_url(url)) == (make_url(url), {})


@pytest.mark.parametrize("given", ["None", "-1", "2&prepare_threshold=3"])
def test_what_is_no_threshold_is_refused(given: str) -> None:
    dsn = f"postgresql://ann:secret@db/shop?prepare_threshold={given}"
    for refuse in (Oban, engine_for):
        with pytest.raises(ValueError, match="must be a number or none") as refused:
            refuse(dsn)
        assert "secret" not in str(refused.value)


async def test_connections_heed_it(postgres_dsn: str) -> None:
    separator = "&" if "?" in postgres_dsn else "?"
    oban = Oban(f"{postgres_dsn}{separator}prepare_threshold=none")
    async with oban.connection() as connection:
        assert connection.prepare_threshold is None
    await oban.stop()
    with engine_for(f"{postgres_dsn}{separator}prepare_threshold=7").connect() as connection:
        assert connection.connection.driver_connection.prepare_threshold == 7
