"""The ticks of a cron expression in a time zone, also around changes of its clock.

CronSim finds the local times that match an expression. It gets naive times only: with a time zone
it ignores `fold`, so in an hour that comes twice it returns ticks before the given instant.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from heapq import merge
from itertools import groupby, tee

from cronsim import CronSim

_MINUTE = timedelta(minutes=1)


def ticks(expr: str, instant: datetime, zone: tzinfo) -> Iterator[datetime]:
    """An endless iterator of the ticks after an aware instant, in UTC and in order.

    If the minute or the hour of an expression starts with `*`, a local time that comes twice ticks
    twice, and a skipped local time does not tick. Otherwise, a local time that comes twice ticks
    the first time, and a skipped local time ticks right after the change.
    """
    minute, hour = expr.split()[:2]
    if minute.startswith("*") or hour.startswith("*"):
        found = _repeating(expr, instant, zone)
    else:
        found = _at_times(expr, instant, zone)
    # Removes duplicates: several skipped times tick at one instant, and both folds find a time that
    # comes once.
    return (tick for tick, _ in groupby(found) if tick > instant)


def _at_times(expr: str, instant: datetime, zone: tzinfo) -> Iterator[datetime]:
    for local in CronSim(expr, _local(instant, zone)):
        while (tick := _instant(local, zone)) is None:
            local += _MINUTE
        yield tick


def _repeating(expr: str, instant: datetime, zone: tzinfo) -> Iterator[datetime]:
    # Both folds list the local times in the order of their instants, so that they can be merged.
    later = _local(instant, zone).replace(tzinfo=zone, fold=1).utcoffset()
    assert later is not None
    # In an hour that comes twice, start so early that its second pass is included.
    start = instant.astimezone(UTC).replace(tzinfo=None) + later
    first, second = tee(CronSim(expr, start))
    return merge(_instants(first, zone, fold=0), _instants(second, zone, fold=1))


def _instants(times: Iterator[datetime], zone: tzinfo, fold: int) -> Iterator[datetime]:
    return (tick for local in times if (tick := _instant(local, zone, fold)) is not None)


def _local(instant: datetime, zone: tzinfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _instant(local: datetime, zone: tzinfo, fold: int = 0) -> datetime | None:
    """The instant of a local time of the zone, in UTC; `None` if the clock skips the time."""
    instant = local.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    return instant if _local(instant, zone) == local else None
