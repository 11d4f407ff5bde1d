"""Cron entries: valid declarations, and their ticks."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest

from oban_sqla import Job, Worker, job, worker
from oban_sqla.workers import registry
from oban_sqla.workers.cron import Cron, parse


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("* * * *", "five fields"),
        ("* * * * * *", "five fields"),
        ("61 * * * *", "'61 \\* \\* \\* \\*' is not valid"),
        ("0 0 31 2 *", "never ticks|not valid"),
        ("@fortnightly", "'@fortnightly' is unknown; there are @hourly"),
        ({"expr": "* * * * *", "zone": "UTC"}, "no key 'zone'; there are expr"),
        ({"timezone": "UTC"}, "needs an expression"),
        ({"expr": "* * * * *", "timezone": "Mars/Base"}, "'Europe/Berlin', not 'Mars/Base'"),
        ({"expr": "* * * * *", "catch_up": "some"}, "'last', 'all' or None, not 'some'"),
        (5, "must be an expression"),
    ],
)
def test_an_invalid_entry_is_refused_at_the_declaration(given: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):

        @worker(cron=given, name="wrong")
        class Wrong:
            async def process(self, job: Job) -> None: ...


def test_a_function_that_needs_arguments_is_refused() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'month'"):

        @job(cron="@monthly", name="report")
        def report(month: str) -> None: ...


def test_an_entry_is_not_inherited() -> None:
    class Base(Worker, cron="@daily", name="cron-base"):
        async def process(self, job: Job) -> None: ...

    class Sub(Base, name="cron-sub"): ...

    names = {options.name for options in registry.with_cron()}
    assert "cron-base" in names
    assert "cron-sub" not in names


def test_an_entry_has_the_name_that_oban_py_gives_it() -> None:
    assert Cron("@daily").label("app.Worker") == "bde5273e"
    assert Cron("@daily", "Europe/Berlin").label("app.Worker") != "bde5273e"


def ticks(expr: str, since: str, zone: str, count: int) -> list[str]:
    found = parse({"expr": expr, "timezone": zone}).after(
        datetime.fromisoformat(since).replace(tzinfo=UTC), "UTC"
    )
    return [f"{tick:%m-%d %H:%M}" for tick in islice(found, count)]


def test_a_tick_in_the_skipped_hour_comes_right_after_it() -> None:
    # 02:30 does not exist in Berlin on 29 March: 03:00 there is 01:00 UTC.
    assert ticks("30 2 * * *", "2026-03-28T12:00", "Europe/Berlin", 2) == [
        "03-29 01:00",
        "03-30 00:30",
    ]


def test_a_tick_in_the_repeated_hour_comes_once() -> None:
    assert ticks("30 2 * * *", "2026-10-24T12:00", "Europe/Berlin", 2) == [
        "10-25 00:30",
        "10-26 01:30",
    ]


def test_an_hourly_entry_ticks_twice_in_the_repeated_hour() -> None:
    assert ticks("0 * * * *", "2026-10-24T23:30", "Europe/Berlin", 4) == [
        "10-25 00:00",
        "10-25 01:00",
        "10-25 02:00",
        "10-25 03:00",
    ]


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("last", ["12:00"]), ("all", ["10:00", "11:00", "12:00"]), (None, [])],
)
def test_missed_ticks_are_caught_up_as_the_entry_says(catch_up: Any, expected: list[str]) -> None:
    now = datetime(2026, 11, 1, 12, 5, tzinfo=UTC)
    entry = Cron("@hourly", None, catch_up)
    found, more = entry.due(now - timedelta(hours=3), now, "UTC", 100)
    assert [f"{tick:%H:%M}" for tick in found] == expected
    assert not more


def test_a_tick_that_has_just_come_was_not_missed() -> None:
    now = datetime(2026, 11, 1, 12, 0, 2, tzinfo=UTC)
    entry = Cron("@hourly", None, None)
    assert entry.due(now - timedelta(hours=3), now, "UTC", 100)[0] == [now.replace(second=0)]


def test_many_missed_ticks_come_in_batches() -> None:
    now = datetime(2026, 11, 1, 12, tzinfo=UTC)
    entry = Cron("* * * * *", None, "all")
    found, more = entry.due(now - timedelta(hours=1), now, "UTC", 45)
    assert (len(found), more) == (45, True)
    found, more = entry.due(found[-1], now, "UTC", 45)
    assert (len(found), more) == (15, False)


def test_the_last_tick_of_a_rare_entry_is_found() -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    found, _ = Cron("@yearly").due(datetime(2020, 5, 5, tzinfo=UTC), now, "UTC", 10)
    assert found == [datetime(2026, 1, 1, tzinfo=UTC)]
