"""Conditions for single values: names, numbers, counts."""

import math

LARGEST_COUNT = 2**31 - 1
"""The largest value of PostgreSQL's `integer`."""


def is_name(value: object, most_bytes: float = math.inf) -> bool:
    if not isinstance(value, str) or not value.strip() or "\x00" in value:
        return False
    try:
        return len(value.encode()) <= most_bytes
    except UnicodeEncodeError:
        return False


def is_number(value: object) -> bool:
    try:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    except OverflowError:
        return False


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_COUNT
