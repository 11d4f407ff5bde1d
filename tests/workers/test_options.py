"""Options are declared once: classes, decorators and functions check and store the same ones."""

from dataclasses import dataclass
from typing import Any

import pytest

from oban_sqla import Job, Worker, job, worker
from oban_sqla.workers import registry
from oban_sqla.workers.declaration import JOB_OPTIONS
from oban_sqla.workers.function import FUNCTION_OPTIONS
from oban_sqla.workers.options import WorkerOptions
from oban_sqla.workers.worker import CLASS_OPTIONS


def by_inheriting(**options: Any) -> Any:
    class Declared(Worker, **options):
        def process(self, job: Job) -> None: ...

    return Declared


def by_decorating(**options: Any) -> Any:
    @worker(**options)
    class Declared:
        def process(self, job: Job) -> None: ...

    return Declared


def by_function(**options: Any) -> Any:
    @job(**options)
    def declared() -> None: ...

    return declared


every_way = pytest.mark.parametrize("declare", [by_inheriting, by_decorating, by_function])


WRONG: dict[str, Any] = {
    "queue": " ",
    "priority": 10,
    "max_attempts": 0,
    "tags": "email",
    "meta": [],
    "deadline": 0,
    "unique": "yes",
    "name": "",
    "oban": "",
    "aliases": "old.Name",
    "cron": "never",
    "limit": 5,
    "rate": 5,
    "chain": 5,
    "timeout": 0,
    "retry_on": 5,
    "on_discard": int,
    "discard_on": [ValueError, "ValueError"],
    "cancel_on": int,
    "interruptible": 1,
    "missing": "ignore",
}


@every_way
@pytest.mark.parametrize("option", WorkerOptions.__annotations__)
def test_an_invalid_value_is_refused_at_the_declaration(declare: Any, option: str) -> None:
    field = "worker" if option == "name" else option
    with pytest.raises((TypeError, ValueError), match=rf"\b{field}\b"):
        declare(**{option: WRONG[option]})


@every_way
def test_an_option_of_none_counts_as_not_given(declare: Any) -> None:
    plain = vars(declare().__oban__)
    for option in WorkerOptions.__annotations__:
        assert vars(declare(**{option: None}).__oban__) == plain, option


@pytest.mark.parametrize("options", [CLASS_OPTIONS, FUNCTION_OPTIONS, JOB_OPTIONS])
def test_each_option_has_a_description(options: Any) -> None:
    assert all(option.says.endswith((".", "`.")) for option in options.values())


def test_a_subclass_inherits_options() -> None:
    options: dict[str, Any] = {"timeout": 5, "interruptible": True, "missing": "raise"}
    base = by_inheriting(**options, unique=True, oban="billing", cron="@daily")
    kept = vars(type("Sub", (base,), {}).__oban__)
    assert {name: kept[name] for name in options} == options
    assert kept["unique"] == base.__oban__.unique
    assert kept["oban"] == "billing"
    assert kept["cron"] is None


def test_a_class_copied_by_a_decorator_keeps_options_that_are_not_inherited() -> None:
    @dataclass(slots=True)
    class Slotted(Worker, cron="@daily", name="tests.SlottedCron"):
        tries: int = 0

        def process(self, job: Job) -> None: ...

    assert "tests.SlottedCron" in {entry.name for entry in registry.with_cron()}
