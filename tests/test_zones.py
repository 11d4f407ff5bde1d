"""Time zones: by name, with and without time zone data."""

import sys
import zoneinfo
from collections.abc import Iterator
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from oban_sqla import Oban
from oban_sqla.workers.cron import Cron, parse
from oban_sqla.zones import time_zone


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither the system nor a package has time zone data."""
    paths = zoneinfo.TZPATH
    for name in [name for name in sys.modules if name.partition(".")[0] == "tzdata"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tzdata", None)
    zoneinfo.reset_tzpath(to=[])
    ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(to=paths)
    ZoneInfo.clear_cache()


def test_a_zone_has_a_name() -> None:
    assert time_zone("Europe/Berlin") == ZoneInfo("Europe/Berlin")
    assert time_zone("UTC") is UTC


@pytest.mark.parametrize(
    "name", ["Mars/Base", "", "../etc/passwd", "/etc/localtime", "a\x00b", 5, None]
)
def test_any_other_name_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="timezone must be a name like 'Europe/Berlin', not"):
        time_zone(name)


@pytest.mark.usefixtures("no_data")
def test_utc_needs_no_data() -> None:
    Oban("postgresql://localhost/shop", queues={"default": 1})
    assert parse("@daily") == Cron("@daily")
    assert parse({"expr": "@daily", "timezone": "Etc/UTC"}).timezone == "Etc/UTC"


@pytest.mark.usefixtures("no_data")
def test_a_zone_without_data_is_reported() -> None:
    message = "'Europe/Berlin' can't be loaded: this system has no time zone data; .*tzdata"
    with pytest.raises(ValueError, match=message):
        parse({"expr": "@daily", "timezone": "Europe/Berlin"})
    with pytest.raises(ValueError, match=message):
        Oban("postgresql://localhost/shop", queues={"default": 1}, timezone="Europe/Berlin")
