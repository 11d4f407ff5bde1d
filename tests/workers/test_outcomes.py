"""The results of `process` are checked when they are made, in the worker's own traceback."""

from datetime import timedelta
from typing import Any

import pytest

from oban_sqla import Record, Snooze


@pytest.mark.parametrize("seconds", [0, 5, 0.5, timedelta(hours=1), timedelta.max])
def test_a_snooze_takes_seconds_or_a_timedelta(seconds: Any) -> None:
    assert Snooze(seconds).seconds == seconds


@pytest.mark.parametrize(
    ("seconds", "error", "message"),
    [
        (-1, ValueError, r"Snooze\(seconds\) must not be negative, got -1"),
        (timedelta(-1), ValueError, r"Snooze\(seconds\) must not be negative"),
        (float("inf"), ValueError, r"Snooze\(seconds\) must be finite, not inf"),
        (10**400, ValueError, r"Snooze\(seconds\) 1000.* is more seconds than a date holds"),
        ("5", TypeError, r"Snooze\(seconds\) must be a timedelta or seconds, not '5'"),
        (None, TypeError, r"Snooze\(seconds\) must be a timedelta or seconds, not None"),
    ],
)
def test_a_snooze_refuses_other_times(seconds: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Snooze(seconds)


def test_a_record_is_a_copy() -> None:
    value = {"ids": [1]}
    record = Record(value)
    value["ids"].append(2)
    assert record.value == {"ids": [1]}


@pytest.mark.parametrize("value", [None, 0, "x", [], {"a": [1.5, None]}])
def test_a_record_takes_any_json(value: Any) -> None:
    assert Record(value).value == value


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({1, 2}, TypeError, r"Record\(value\) is a set, not JSON: \{1, 2\}"),
        ([float("nan")], ValueError, r"Record\(value\)\[0\] is nan"),
        ({"a": "\x00"}, ValueError, r"Record\(value\)\['a'\] has a NUL character"),
    ],
)
def test_a_record_refuses_values_that_are_not_json(value: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Record(value)
