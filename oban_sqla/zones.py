"""Find time zones by their names. UTC needs no time zone data."""

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# Names of UTC, which Python knows without time zone data.
_UTC = frozenset({"UTC", "Etc/UTC"})
# A zone that every time zone database has.
_EXAMPLE = "Europe/Berlin"


def time_zone(name: object) -> tzinfo:
    """The time zone called `name`, such as 'Europe/Berlin'.

    `ValueError` if the name is unknown, or if this system has no time zone data.
    """
    if isinstance(name, str):
        if name in _UTC:
            return UTC
        if (zone := _load(name)) is not None:
            return zone
        if _load(_EXAMPLE) is None:
            raise ValueError(
                f"timezone {name!r} can't be loaded: this system has no time zone data;"
                " install some with `pip install tzdata`"
            )
    raise ValueError(f"timezone must be a name like {_EXAMPLE!r}, not {name!r}")


def _load(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
