"""Cron entries: the times at which jobs of a worker are enqueued."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from cronsim import CronSimError

from ..models import validation
from ..zones import time_zone
from .ticks import ticks

CatchUp = Literal["last", "all"] | None

REBOOT = "@reboot"

NICKNAMES: Mapping[str, str] = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_KEYS = ("expr", "timezone", "catch_up")
# A tick counts as missed only if it is older than this.
_JUST_NOW = timedelta(minutes=1)
# The search for the last tick tries these windows in turn, since most entries tick often.
_WINDOWS = (timedelta(hours=1), timedelta(days=2), timedelta(days=100))


@dataclass(frozen=True, slots=True)
class Cron:
    """When jobs of a worker are enqueued, and whether missed ticks are made up for."""

    expr: str
    """Five fields, or a nickname such as `@daily`. `@reboot` ticks once when the nodes start."""
    timezone: str | None = None
    """`None` for the time zone of the instance."""
    catch_up: CatchUp = "last"
    """Which ticks to enqueue that were missed while no leader ran: the last one, all, or none."""

    def label(self, worker: str) -> str:
        """The unique name of the entry, the same as oban-py's `cron_name`."""
        options = {"timezone": self.timezone} if self.timezone else {}
        text = json.dumps(options, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(f"{self.expr}:{worker}:{text}".encode()).hexdigest()[:8]

    def after(self, instant: datetime, timezone: str) -> Iterator[datetime]:
        """An endless iterator of the ticks after an instant, in UTC.

        `timezone` is that of the instance. Changes of the clock follow Debian's rule: see `ticks`.
        """
        if self.expr == REBOOT:
            return iter(())
        zone = time_zone(self.timezone or timezone)
        return ticks(NICKNAMES.get(self.expr, self.expr), instant, zone)

    def due(
        self, since: datetime, now: datetime, timezone: str, most: int
    ) -> tuple[list[datetime], bool]:
        """At most `most` ticks from `since` until `now` to enqueue, and whether there are more."""
        if self.catch_up == "all":
            found: list[datetime] = []
            for tick in self._between(since, now, timezone):
                if len(found) == most:
                    return found, True
                found.append(tick)
            return found, False
        last = self._last(since, now, timezone)
        if last is None or (self.catch_up is None and now - last >= _JUST_NOW):
            return [], False
        return [last], False

    def _between(self, since: datetime, now: datetime, timezone: str) -> Iterator[datetime]:
        for tick in self.after(since, timezone):
            if tick > now:
                return
            yield tick

    def _last(self, since: datetime, now: datetime, timezone: str) -> datetime | None:
        for window in _WINDOWS:
            if now - window > since:
                for last in reversed(list(self._between(now - window, now, timezone))):
                    return last
        return next(reversed(list(self._between(since, now, timezone))), None)


def parse(given: str | Mapping[str, Any]) -> Cron:
    """Parse the option `cron` of a worker: an expression, or a mapping with `expr`.

    `TypeError` or `ValueError`, with the value and an example, for anything else.
    """
    options = {"expr": given} if isinstance(given, str) else given
    if not isinstance(options, Mapping):
        raise TypeError(
            f"cron must be an expression like '0 9 * * MON-FRI', or a mapping with 'expr', not"
            f" {validation.show(given)}"
        )
    for key in options:
        if key not in _KEYS:
            raise TypeError(f"cron has no key {key!r}; there are {', '.join(_KEYS)}")
    if not isinstance(expr := options.get("expr"), str):
        raise TypeError(f"cron needs an expression as 'expr', not {validation.show(expr)}")
    zone = options.get("timezone")
    catch_up: Any = options.get("catch_up", "last")
    if catch_up not in ("last", "all", None):
        raise ValueError(f"catch_up must be 'last', 'all' or None, not {validation.show(catch_up)}")
    if zone is not None:
        time_zone(zone)
    cron = Cron(expr.strip(), zone, catch_up)
    _check(cron)
    return cron


def _check(cron: Cron) -> None:
    if cron.expr == REBOOT:
        return
    fields = NICKNAMES.get(cron.expr, cron.expr)
    wrong = f"cron expression {cron.expr!r}"
    if cron.expr.startswith("@") and cron.expr not in NICKNAMES:
        raise ValueError(f"{wrong} is unknown; there are {', '.join((*NICKNAMES, REBOOT))}")
    if len(fields.split()) != 5:
        raise ValueError(f"{wrong} must have five fields: minute hour day month weekday")
    try:
        comes = next(cron.after(datetime(2024, 1, 1, tzinfo=UTC), "UTC"), None)
    except CronSimError as error:
        raise ValueError(f"{wrong} is not valid: {error}") from None
    if comes is None:
        raise ValueError(f"{wrong} never ticks")
