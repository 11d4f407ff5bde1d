"""The ticks of a cron expression in a time zone, also where its clock is changed.

CronSim finds the local times that an expression matches. It is not asked in a time zone: its local
times have no `fold`, so in an hour that comes twice it returns ticks from before the given instant.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from heapq import merge
from itertools import groupby, tee

from cronsim import CronSim

_MINUTE = timedelta(minutes=1)


def ticks(expr: str, instant: datetime, zone: tzinfo) -> Iterator[datetime]:
    """The ticks after an aware instant, in UTC and in order, without end.

    An expression whose minute or hour starts with `*` follows the time that passes: local times
    that come twice tick twice, skipped ones never. Any other expression names times of the day:
    one that comes twice ticks the first time, a skipped one right after the change.
    """
    minute, hour = expr.split()[:2]
    if minute.startswith("*") or hour.startswith("*"):
        found = _repeating(expr, instant, zone)
    else:
        found = _at_times(expr, instant, zone)
    # Several skipped times tick together, and a time that comes once is found once in each fold.
    return (tick for tick, _ in groupby(found) if tick > instant)


def _at_times(expr: str, instant: datetime, zone: tzinfo) -> Iterator[datetime]:
    for local in CronSim(expr, _local(instant, zone)):
        while (tick := _instant(local, zone)) is None:
            local += _MINUTE
        yield tick


def _repeating(expr: str, instant: datetime, zone: tzinfo) -> Iterator[datetime]:
    # Local times are in the order of their first instants, and in that of their second ones.
    later = _local(instant, zone).replace(tzinfo=zone, fold=1).utcoffset()
    assert later is not None
    # Start from the second time of the hour that comes twice, should it be yet to come.
    start = instant.astimezone(UTC).replace(tzinfo=None) + later
    first, second = tee(CronSim(expr, start))
    return merge(_instants(first, zone, fold=0), _instants(second, zone, fold=1))


def _instants(times: Iterator[datetime], zone: tzinfo, fold: int) -> Iterator[datetime]:
    return (tick for local in times if (tick := _instant(local, zone, fold)) is not None)


def _local(instant: datetime, zone: tzinfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _instant(local: datetime, zone: tzinfo, fold: int = 0) -> datetime | None:
    """When a clock of the zone shows a local time, in UTC; `None` if it skips the time."""
    instant = local.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    return instant if _local(instant, zone) == local else None
