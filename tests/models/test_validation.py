"""The values that a job accepts. The errors of other values name the field and the value."""

import enum
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_sqla import Job, Worker
from oban_sqla.models import validation

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Anything(Worker, queue="some"):
    def process(self, job: Job) -> None: ...


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = [value]
    return value


REFUSED = {
    # args and meta
    "args: a list": (
        {"args": [1, 2]},
        TypeError,
        "args must be a mapping of strings to JSON values, not [1, 2]",
    ),
    "args: a string": (
        {"args": "x"},
        TypeError,
        "args must be a mapping of strings to JSON values, not 'x'",
    ),
    "args: NaN": (
        {"args": {"rate": float("nan")}},
        ValueError,
        "args['rate'] is nan, which JSON can't express",
    ),
    "args: Infinity": (
        {"args": {"rates": [1.0, float("-inf")]}},
        ValueError,
        "args['rates'][1] is -inf, which JSON can't express",
    ),
    "args: NUL": (
        {"args": {"name": "a\x00b"}},
        ValueError,
        r"args['name'] has a NUL character, which PostgreSQL can't store: 'a\x00b'",
    ),
    "args: NUL in a key": (
        {"args": {"user": {"\x00": 1}}},
        ValueError,
        r"args['user']['\x00'] has a NUL character, which PostgreSQL can't store: '\x00'",
    ),
    "args: a lone surrogate": (
        {"args": {"name": "\ud83d"}},
        ValueError,
        r"args['name'] has a lone surrogate, which is not valid Unicode: '\ud83d'",
    ),
    "args: a pair of surrogates": (
        {"args": {"name": "\ud83d\ude00"}},
        ValueError,
        r"args['name'] has a lone surrogate, which is not valid Unicode: '\ud83d\ude00'",
    ),
    "args: an unknown type": (
        {"args": {"ids": {"a": [UUID(int=1)]}}},
        TypeError,
        "args['ids']['a'][0] is a UUID, not JSON: UUID('00000000-0000-0000-0000-000000000001');"
        " pass str, int, float, bool, None, lists and dicts of them",
    ),
    "args: bytes": ({"args": {"a": b"x"}}, TypeError, "args['a'] is a bytes, not JSON: b'x'"),
    "args: a set": ({"args": {"a": {1}}}, TypeError, "args['a'] is a set, not JSON: {1}"),
    "args: a Decimal": (
        {"args": {"a": Decimal("0.1")}},
        TypeError,
        "args['a'] is a Decimal, not JSON: Decimal('0.1')",
    ),
    "args: a datetime": ({"args": {"a": NOON}}, TypeError, "args['a'] is a datetime, not JSON"),
    "args: a date": ({"args": {"a": NOON.date()}}, TypeError, "args['a'] is a date, not JSON"),
    "args: unprintable": (
        {"args": {"a": Unprintable()}},
        TypeError,
        "args['a'] is a Unprintable, not JSON: <Unprintable instance at 0x",
    ),
    "args: a key that is no string": (
        {"args": {"a": {1: "x"}}},
        TypeError,
        "args['a'] has the key 1; the keys of JSON are strings",
    ),
    "args: the key None": (
        {"args": {None: "x"}},
        TypeError,
        "args has the key None; the keys of JSON are strings",
    ),
    "args: an integer of too many digits": (
        {"args": {"n": 10**5000}},
        ValueError,
        "args['n'] is an integer of 16610 bits, too large to store",
    ),
    "args: too deep": (
        {"args": nested(257)},
        ValueError,
        "args is nested more than 256 levels deep, or contains itself: {'a': {'a':",
    ),
    "args: as deep as can be": (
        {"args": nested(100_000)},
        ValueError,
        "args is nested more than 256 levels deep",
    ),
    "args: contains itself": (
        {"args": itself()},
        ValueError,
        "args is nested more than 256 levels deep, or contains itself: {'again': [{",
    ),
    "meta: a list": (
        {"meta": [1]},
        TypeError,
        "meta must be a mapping of strings to JSON values, not [1]",
    ),
    "meta: NUL": ({"meta": {"a": "\x00"}}, ValueError, "meta['a'] has a NUL character"),
    # queue
    "queue: blank": ({"queue": " \t"}, ValueError, r"queue must not be blank, got ' \t'"),
    "queue: empty": ({"queue": ""}, ValueError, "queue must not be blank, got ''"),
    "queue: None": ({"queue": None}, TypeError, "queue must be a string, not None"),
    "queue: bytes": ({"queue": b"some"}, TypeError, "queue must be a string, not b'some'"),
    "queue: over-long": (
        {"queue": "q" * 128},
        ValueError,
        "queue is 128 characters long, at most 127 fit: 'qqqqqqqqqqqq...qqqqqqqqqqqqq'",
    ),
    "queue: NUL": ({"queue": "a\x00"}, ValueError, r"queue has a NUL character, which PostgreSQL"),
    "queue: surrogate": ({"queue": "\udc80"}, ValueError, r"queue has a lone surrogate"),
    # unknown options
    "unknown: a near miss": (
        {"prioriti": 1},
        TypeError,
        "Anything has no option 'prioriti'; did you mean 'priority'?",
    ),
    "unknown: a far one": (
        {"xyz": 1},
        TypeError,
        "Anything has no option 'xyz'; there are queue, priority, max_attempts, tags, meta,"
        " deadline, unique, schedule_in, scheduled_at",
    ),
    # numbers
    "priority: too low": ({"priority": -1}, ValueError, "priority must be from 0 to 9, got -1"),
    "priority: too high": ({"priority": 10}, ValueError, "priority must be from 0 to 9, got 10"),
    "priority: a float": ({"priority": 1.0}, TypeError, "priority must be an integer, not 1.0"),
    "priority: a bool": ({"priority": True}, TypeError, "priority must be an integer, not True"),
    "priority: a string": ({"priority": "1"}, TypeError, "priority must be an integer, not '1'"),
    "priority: None": ({"priority": None}, TypeError, "priority must be an integer, not None"),
    "priority: too large to print": (
        {"priority": 10**5000},
        ValueError,
        "priority must be from 0 to 9, got <int>",
    ),
    "max_attempts: none": (
        {"max_attempts": 0},
        ValueError,
        "max_attempts must be from 1 to 32767, got 0",
    ),
    "max_attempts: beyond smallint": (
        {"max_attempts": 32768},
        ValueError,
        "max_attempts must be from 1 to 32767, got 32768",
    ),
    # tags
    "tags: a string": ({"tags": "email"}, TypeError, "tags must be a list of strings, not 'email'"),
    "tags: None": ({"tags": None}, TypeError, "tags must be a list of strings, not None"),
    "tags: a mapping": ({"tags": {"a": 1}}, TypeError, "tags must be a list of strings, not {'a'"),
    "tags: not strings": ({"tags": ["a", 1]}, TypeError, "tags must be strings; 1 is a int"),
    "tags: NUL": ({"tags": ["a\x00"]}, ValueError, r"tags has a NUL character"),
    "tags: surrogate": ({"tags": ["\ud800"]}, ValueError, r"tags has a lone surrogate"),
    # times
    "both times": (
        {"schedule_in": 5, "scheduled_at": NOON},
        ValueError,
        "schedule_in (5) and scheduled_at (datetime.datetime(2026, 11, 1, 12, 0, tzinfo=datetime"
        ".timezone.utc)) exclude each other: give one",
    ),
    "schedule_in: negative": (
        {"schedule_in": -0.5},
        ValueError,
        "schedule_in must not be negative, got -0.5",
    ),
    "schedule_in: negative by a hair": (
        {"schedule_in": -1e-9},
        ValueError,
        "schedule_in must not be negative, got -1e-09",
    ),
    "schedule_in: a negative timedelta": (
        {"schedule_in": timedelta(seconds=-1)},
        ValueError,
        "schedule_in must not be negative, got datetime.timedelta(days=-1, seconds=86399)",
    ),
    "schedule_in: infinite": (
        {"schedule_in": float("inf")},
        ValueError,
        "schedule_in must be finite, not inf",
    ),
    "schedule_in: NaN": (
        {"schedule_in": float("nan")},
        ValueError,
        "schedule_in must be finite, not nan",
    ),
    "schedule_in: more than a timedelta": (
        {"schedule_in": 1e300},
        ValueError,
        "schedule_in 1e+300 is more seconds than a date holds",
    ),
    "schedule_in: more than a float": (
        {"schedule_in": 10**400},
        ValueError,
        "schedule_in 100000000000000000...0000000000000000000 is more seconds than a date holds",
    ),
    "schedule_in: beyond the calendar": (
        {"schedule_in": timedelta.max},
        ValueError,
        "schedule_in datetime.timedelta(days=999999999, seconds=86399, microseconds=999999)"
        " leads beyond the year 9999",
    ),
    "schedule_in: a bool": (
        {"schedule_in": True},
        TypeError,
        "schedule_in must be a timedelta or seconds, not True",
    ),
    "schedule_in: a string": (
        {"schedule_in": "5"},
        TypeError,
        "schedule_in must be a timedelta or seconds, not '5'",
    ),
    "scheduled_at: a string": (
        {"scheduled_at": "2026-11-01"},
        TypeError,
        "scheduled_at must be a datetime, not '2026-11-01'",
    ),
    "scheduled_at: a date": (
        {"scheduled_at": date(2026, 11, 1)},
        TypeError,
        "scheduled_at must be a datetime, not datetime.date(2026, 11, 1)",
    ),
    "scheduled_at: a timestamp": (
        {"scheduled_at": 0},
        TypeError,
        "scheduled_at must be a datetime, not 0",
    ),
    "scheduled_at: before the year 1 in UTC": (
        {"scheduled_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))},
        ValueError,
        "scheduled_at datetime.datetime(1, 1, 1, 0, 0, tzinfo=datetime.timezone(datetime.timedelta("
        "seconds=3600))) is outside the years 1 to 9999 in UTC",
    ),
    "scheduled_at: after the year 9999 in UTC": (
        {"scheduled_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))},
        ValueError,
        "is outside the years 1 to 9999 in UTC",
    ),
}


@pytest.mark.parametrize(("options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused_by_new(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    args = options.get("args")
    others = {key: value for key, value in options.items() if key != "args"}
    with pytest.raises(error) as raised:
        Anything.new(args, **others)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("option", ["queue", "priority", "max_attempts", "tags", "meta"])
def test_bad_input_is_refused_when_the_worker_is_declared(option: str) -> None:
    with pytest.raises((TypeError, ValueError), match=option):
        type("Misdeclared", (Worker,), {"process": lambda self, job: None}, **{option: 10.5})


class Colour(enum.StrEnum):
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 3


class Percent(float):
    pass


def test_a_value_is_copied_into_plain_types() -> None:
    value = OrderedDict(
        [("a", (1, [True, None])), (Colour.RED, Colour.RED), ("n", Size.LARGE), ("p", Percent(0.5))]
    )
    plain = validation.json_object("args", MappingProxyType(value))
    assert plain == {"a": [1, [True, None]], "red": "red", "n": 3, "p": 0.5}
    assert [type(key) for key in plain] == [str] * 4
    assert [type(item) for item in plain.values()] == [list, str, int, float]


def test_nesting_is_limited_at_a_level_that_does_not_depend_on_the_caller() -> None:
    assert validation.json_object("args", nested(256)) == nested(256)

    def call_from(depth: int) -> None:
        if depth:
            call_from(depth - 1)
        else:
            validation.json_object("args", nested(256))

    call_from(200)


def test_tags_are_trimmed_in_lower_case_unique_and_sorted() -> None:
    assert validation.tag_list(iter([" B", "a", "A ", "", "  ", "b"])) == ["a", "b"]


class Nowhere(tzinfo):
    """A zone without an offset, which makes a datetime naive."""

    def utcoffset(self, when: datetime | None) -> None:
        return None


@pytest.mark.parametrize(
    "value",
    [
        NOON,
        NOON.replace(tzinfo=None),
        NOON.replace(tzinfo=Nowhere()),
        NOON.astimezone(timezone(timedelta(hours=-9, minutes=-30))),
    ],
)
def test_an_instant_is_in_utc(value: datetime) -> None:
    at = validation.instant("scheduled_at", value)
    assert (at, at.tzinfo) == (NOON, UTC)


def result(rule: Callable[..., datetime], *args: object) -> datetime | str:
    """The result of a check, or its error."""
    try:
        return rule(*args)
    except ValueError as refusal:
        return str(refusal)


@given(st.datetimes(timezones=st.none() | st.timezones()))
def test_an_instant_is_aware_or_refused(value: datetime) -> None:
    at = result(validation.instant, "scheduled_at", value)
    if isinstance(at, str):
        assert "scheduled_at" in at
    else:
        assert at == (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


@given(st.one_of(st.timedeltas(), st.floats(), st.integers()))
def test_a_delay_leads_to_an_instant_or_is_refused(value: timedelta | float) -> None:
    at = result(validation.moment_after, "schedule_in", NOON, value)
    if isinstance(at, str):
        assert "schedule_in" in at
    else:
        assert at >= NOON
