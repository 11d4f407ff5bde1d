"""`Unique`: its options, and when two jobs have the same unique key."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_sqla import Job, JobState, Unique, Worker, job
from oban_sqla.models.unique_job import hold_key, may_hold_key, unique_key

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3)
ARGS = st.dictionaries(TEXTS, st.integers() | TEXTS | st.none(), max_size=4)


def key(args: dict[str, Any], unique: Unique, **options: Any) -> str:
    new = Job("tests.Nobody", args, unique=unique, **options)
    assert hold_key(new)
    return unique_key(new)


def test_unique_has_defaults() -> None:
    unique = Unique()
    assert unique == Unique(
        period=None,
        fields=["worker", "queue", "args"],
        states=["available", "scheduled", "suspended", "executing", "retryable", "completed"],
    )
    assert (unique.keys, unique.replace) == ((), {})


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        ({"period": timedelta(minutes=2)}, "period", 120.0),
        ({"fields": ["worker", "args"]}, "fields", ("args", "worker")),
        ({"states": "scheduled"}, "states", (JobState.SCHEDULED,)),
        ({"states": "all"}, "states", tuple(JobState)),
        ({"states": [JobState.RETRYABLE, "available"]}, "states", ("available", "retryable")),
        ({"replace": {"scheduled": ["args"]}}, "replace", {"scheduled": ("args",)}),
        (
            {"replace": ["args"]},
            "replace",
            dict.fromkeys(["available", "scheduled", "suspended", "retryable"], ("args",)),
        ),
    ],
)
def test_unique_converts_its_options(options: Any, name: str, expected: Any) -> None:
    assert getattr(Unique(**options), name) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"period": 0}, "period must be more than 0"),
        ({"period": -1}, "period"),
        ({"period": float("inf")}, "period"),
        ({"period": "60"}, "period"),
        ({"fields": ["arg"]}, "fields must be of args, meta, queue, worker; 'arg' is unknown"),
        ({"fields": []}, "fields must name at least one"),
        ({"fields": "args"}, "fields must be a list"),
        ({"keys": "url"}, "keys must be a list"),
        ({"keys": [1]}, "keys must be strings"),
        ({"keys": ["url"], "fields": ["worker"]}, "keys .* are keys of args or meta"),
        ({"states": "waiting"}, "states must be one of the groups"),
        ({"states": ["waiting"]}, "waiting"),
        ({"states": []}, "states must name at least one"),
        ({"replace": ["state"]}, "replace must be of .*; 'state' is unknown"),
        ({"replace": {"waiting": ["args"]}}, "waiting"),
        ({"replace": "args"}, "replace must be a list"),
    ],
)
def test_invalid_options_are_refused(options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Unique(**options)


@pytest.mark.parametrize("unique", ["yes", 1, {"period": 60}])
def test_an_invalid_unique_option_is_refused_everywhere(unique: Any) -> None:
    with pytest.raises(TypeError, match="unique must be a Unique, True or False"):
        Job("tests.Nobody", unique=unique)
    with pytest.raises(TypeError, match="unique must be a Unique"):

        class Wrong(Worker, unique=unique):
            async def process(self, job: Job) -> None: ...


@given(ARGS, ARGS)
def test_the_same_arguments_in_any_order_hold_one_key(one: Any, two: Any) -> None:
    unique = Unique()
    turned = dict(reversed(one.items()))
    assert key(one, unique) == key(turned, unique)
    assert (key(one, unique) == key(two, unique)) is (one == two)


@given(ARGS, ARGS, st.sets(TEXTS, min_size=1))
def test_only_the_named_keys_are_compared(one: Any, two: Any, keys: set[str]) -> None:
    unique = Unique(keys=keys)
    same = {k: one[k] for k in keys & one.keys()} == {k: two[k] for k in keys & two.keys()}
    assert (key(one, unique) == key(two, unique)) is same


def test_a_job_that_holds_its_key_again_keeps_it() -> None:
    new = Job("tests.Nobody", {"n": 1}, meta={"a": 1}, unique=Unique(fields=["meta"]))
    assert hold_key(new)
    first = unique_key(new)
    assert hold_key(new)
    assert unique_key(new) == first


def test_jobs_have_the_unique_option_of_their_worker() -> None:
    class Base(Worker, name="tests.unique.Base", unique=Unique(period=60)):
        async def process(self, job: Job) -> None: ...

    class Child(Base, name="tests.unique.Child"):
        """A worker that inherits the option."""

    class Other(Base, name="tests.unique.Other", unique=False):
        """A worker that does not."""

    @job(name="tests.unique.function", unique=True)
    def function(n: int) -> None: ...

    assert may_hold_key(Base.new({}))
    assert may_hold_key(Child.new({}))
    assert not may_hold_key(Other.new({}))
    assert may_hold_key(Other.new({}, unique=True))
    assert not may_hold_key(Child.new({}, unique=False))
    assert may_hold_key(function.new(1))
    assert not may_hold_key(function.new(1, unique=False))
