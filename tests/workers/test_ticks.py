"""Ticks when a time zone changes its clock, compared with a slow search minute by minute."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

import pytest

from oban_sqla.workers.cron import Cron
from oban_sqla.workers.ticks import ticks

YEAR = 2026
MINUTE = timedelta(minutes=1)
# How far around a change ticks are compared, and how much earlier the same local time may come.
REACH = timedelta(hours=27)
HIDDEN = timedelta(hours=4)
# Changes by one hour, half an hour or two hours, at midnight, in both hemispheres.
SAMPLE = (
    "Africa/Cairo",
    "America/Santiago",
    "Antarctica/Troll",
    "Australia/Lord_Howe",
    "Europe/Berlin",
)

EVERY = range(60)
EXPRESSIONS = {
    "* * * * *": (EVERY, range(24)),
    "0 * * * *": ([0], range(24)),
    "*/15 2 * * *": (range(0, 60, 15), [2]),
    "30 2 * * *": ([30], [2]),
    "0,15,30,45 1-3 * * *": (range(0, 60, 15), [1, 2, 3]),
    "59 23 * * *": ([59], [23]),
    "0 0 * * *": ([0], [0]),
    "5,35 */2 * * *": ([5, 35], range(0, 24, 2)),
    "30 0-3,22,23 * * *": ([30], [0, 1, 2, 3, 22, 23]),
}

Change = tuple[datetime, timedelta, timedelta]


@cache
def changes(name: str) -> tuple[Change, ...]:
    """Each change of a zone's clock in the year: its time, and the offsets before and after."""
    zone = ZoneInfo(name)
    days = [datetime(YEAR, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(366)]
    offsets = [offset(day, zone) for day in days]
    found = []
    for day, before, after in zip(days, offsets, offsets[1:], strict=False):
        if before != after:
            at = day
            while offset(at, zone) == before:
                at += MINUTE
            found.append((at, before, after))
    return tuple(found)


def offset(at: datetime, zone: ZoneInfo) -> timedelta:
    found = at.astimezone(zone).utcoffset()
    assert found is not None
    return found


def zones_that_change() -> Sequence[str]:
    """One zone for each set of changes in the year, since the others have the same local times."""
    found: dict[tuple[Change, ...], str] = {}
    for name in sorted(available_timezones() - {"localtime", "Factory"}):
        found.setdefault(changes(name), name)
    return sorted(name for changes, name in found.items() if changes)


@cache
def shown_times(start: datetime, zone: ZoneInfo) -> Sequence[tuple[datetime, Sequence[datetime]]]:
    """Each minute after `start`, with the local times that the clock skips then, and the one it
    shows.
    """
    found = []
    shown = start.astimezone(zone).replace(tzinfo=None, fold=0)
    for minute in range(int((2 * REACH + HIDDEN) / MINUTE) + 1):
        at = start + minute * MINUTE
        local = at.astimezone(zone).replace(tzinfo=None, fold=0)
        skipped = [shown + MINUTE * n for n in range(1, int((local - shown) / MINUTE))]
        found.append((at, [*skipped, local]))
        shown = local
    return found


def slow_ticks(expr: str, since: datetime, zone: ZoneInfo) -> list[datetime]:
    """All ticks after `since`, by looking at each minute, including skipped minutes."""
    minutes, hours = EXPRESSIONS[expr]
    repeats = "*" in (expr[0], expr.split()[1][0])
    found = []
    seen: set[datetime] = set()
    for at, times in shown_times(since - HIDDEN, zone):
        for time in times[-1:] if repeats else times:
            if time.minute in minutes and time.hour in hours and (repeats or time not in seen):
                found.append(at)
                break
        seen.update(times)
    return [tick for tick in found if tick > since]


def compare(expr: str, name: str) -> None:
    zone = ZoneInfo(name)
    for change, _, _ in changes(name):
        start = change - REACH
        expected = slow_ticks(expr, start, zone)
        assert list(islice(ticks(expr, start, zone), len(expected))) == expected, name
        # From any moment, in either of the two hours, the next tick is the same.
        for quarter in range(-12, 12):
            moment = change + timedelta(minutes=15 * quarter, seconds=7 * (quarter % 3))
            after = next(tick for tick in expected if tick > moment)
            assert next(ticks(expr, moment, zone)) == after, (name, moment)


@pytest.mark.parametrize("name", SAMPLE)
def test_ticks_equal_those_of_a_slow_search(name: str) -> None:
    for expr in EXPRESSIONS:
        compare(expr, name)


@pytest.mark.torture
def test_ticks_equal_those_of_a_slow_search_in_every_zone() -> None:
    names = zones_that_change()
    assert len(names) > len(SAMPLE)
    for name in names:
        for expr in EXPRESSIONS:
            compare(expr, name)


@pytest.mark.parametrize("expr", ["30 2 * * *", "*/15 2 * * *", "0 * * * *", "* * * * *"])
def test_passes_at_any_moments_enqueue_each_tick_once(expr: str) -> None:
    zone = ZoneInfo("Europe/Berlin")
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)
    end = start + timedelta(hours=6)
    entry = Cron(expr, "Europe/Berlin", "all")
    found: list[datetime] = []
    since = now = start
    for step in range(10_000):
        now += timedelta(seconds=(7, 31, 0.5, 180)[step % 4])
        if now > end:
            break
        due, _ = entry.due(since, now, "UTC", 100)
        found += due
        since = due[-1] if due else since
        assert next(entry.after(now, "UTC")) > now
    assert found == [tick for tick in slow_ticks(expr, start, zone) if tick <= since]


@pytest.mark.parametrize(
    ("zone", "expr", "since", "expected"),
    [
        # 30 December 2011 was skipped.
        ("Pacific/Apia", "0 12 30 12 *", "2011-12-29T00:00", "2011-12-30 10:00"),
        # The clock went from 02:00 back to 01:30.
        ("Australia/Lord_Howe", "*/15 2 * * *", "2026-04-04T14:50", "2026-04-04 15:30"),
        # Midnight is skipped.
        ("Africa/Cairo", "0 0 * * *", "2026-04-23T12:00", "2026-04-23 22:00"),
    ],
)
def test_unusual_changes_of_zones_are_handled(
    zone: str, expr: str, since: str, expected: str
) -> None:
    moment = datetime.fromisoformat(since).replace(tzinfo=UTC)
    assert f"{next(ticks(expr, moment, ZoneInfo(zone))):%Y-%m-%d %H:%M}" == expected
