"""Job functions convert their arguments by annotations: stored as JSON, and read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from oban_sqla import Job, job
from tests.models_as_arguments import Order

if TYPE_CHECKING:
    from collections.abc import Sequence as OnlyForCheckers

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
ONE = UUID(int=1)


class Color(Enum):
    RED = "red"


class Size(StrEnum):
    SMALL = "s"


@dataclass
class Money:
    amount: Decimal
    currency: str = "EUR"


@dataclass
class Invoice:
    total: Money
    due: date
    order: Order | None = None


class Report(BaseModel):
    month: date
    totals: dict[str, Decimal]


@job()
def everything(
    at: datetime,
    key: UUID,
    amount: Decimal,
    color: Color,
    size: Size,
    day: date,
    hour: time,
    length: timedelta,
    invoice: Invoice,
    report: Report,
    keys: list[UUID] | None = None,
    prices: dict[str, Decimal] | None = None,
    **times: datetime,
) -> dict[str, Any]:
    return locals()


@job()
def late(it: Late) -> Any:
    return it


@dataclass
class Late:
    at: datetime


@job()
def either(key: UUID | Decimal, plain: OnlyForCheckers[int], anything: Any = None) -> Any:
    return key


@job()
def plain(number: int, text: str, flag: bool = False, items: list[int] | None = None) -> Any:
    return locals()


@job()
def collections(
    pair: tuple[int, str],
    bare: tuple,  # type: ignore[type-arg]
    names: set[str],
    keys: frozenset[UUID],
    body: bytes,
    file: Path,
    mode: Literal["fast", "slow"],
    address: IPv4Address,
) -> Any:
    return locals()


def stored(job: Job) -> Job:
    """The job after it was stored and read."""
    return Job(job.worker, json.loads(json.dumps(job.args)))


def test_values_arrive_as_given() -> None:
    given = {
        "at": NOON,
        "key": ONE,
        "amount": Decimal("1.20"),
        "color": Color.RED,
        "size": Size.SMALL,
        "day": date(2026, 11, 1),
        "hour": time(12, 30),
        "length": timedelta(hours=1, microseconds=1),
        "invoice": Invoice(Money(Decimal("9.99")), date(2026, 12, 1)),
        "report": Report(month=date(2026, 11, 1), totals={"a": Decimal("0.1")}),
        "keys": [ONE],
        "prices": {"a": Decimal("3.00")},
    }
    arrived = everything.process(stored(everything.new(**given, closing=NOON)))
    assert arrived == {**given, "times": {"closing": NOON}}
    assert isinstance(arrived["size"], Size)
    assert str(arrived["amount"]) == "1.20"


def test_values_of_variadic_parameters_arrive_as_given() -> None:
    @job(name="annotations.variadic")
    def function(first: int, *keys: UUID, **colors: Color) -> Any:
        return first, keys, colors

    two = UUID(int=2)
    arrived = function.process(stored(function.new(1, ONE, two, sky=Color.RED)))
    assert arrived == (1, (ONE, two), {"sky": Color.RED})
    with pytest.raises(TypeError, match="keys must be tuple"):
        function.new(1, ONE, "two")


def test_values_are_stored_as_plain_json() -> None:
    @job(name="annotations.readable")
    def readable(at: datetime, key: UUID, amount: Decimal, color: Color, money: Money) -> None: ...

    args = readable.new(NOON, ONE, Decimal("1.20"), Color.RED, Money(Decimal("5"))).args
    assert args == {
        "at": "2026-11-01T12:00:00+00:00",
        "key": "00000000-0000-0000-0000-000000000001",
        "amount": "1.20",
        "color": "red",
        "money": {"amount": "5", "currency": "EUR"},
    }


@given(st.datetimes(timezones=st.timezones()), st.uuids(), st.decimals(allow_nan=False))
def test_any_value_of_a_supported_type_arrives_as_given(
    at: datetime, key: UUID, amount: Decimal
) -> None:
    @job(name="annotations.any")
    def function(at: datetime, pair: tuple[UUID, Decimal]) -> Any:
        return at, pair

    found, pair = function.process(stored(function.new(at, (key, amount))))
    # Not compared directly: in the gap of a summer time, an instant equals none of another zone.
    assert found.astimezone(UTC) == at.astimezone(UTC)
    assert found.utcoffset() == at.utcoffset()
    assert pair == (key, amount)


def test_a_mapped_instance_within_a_dataclass_is_a_reference() -> None:
    @job(name="annotations.invoice")
    def function(invoice: Invoice) -> None: ...

    order = Order(id=1)
    kept = function.new(Invoice(Money(Decimal(1)), date(2026, 1, 1), order)).args
    assert kept["invoice"]["order"].instance is order


def test_an_annotation_may_name_a_later_class() -> None:
    assert late.process(stored(late.new(Late(NOON)))) == Late(NOON)


def test_json_values_are_not_converted() -> None:
    assert plain.new(True, 7, items=("1",)).args == {"number": True, "text": 7, "items": ["1"]}


def test_a_text_is_refused_for_a_number_or_a_flag() -> None:
    @job(name="annotations.numbers")
    def function(id: int | str, rate: float | None = None, flag: bool = False) -> None: ...

    function.new("5", 1, flag=True)
    with pytest.raises(TypeError, match="plain: number must be int, not '5'"):
        plain.new("5", "a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"numbers: rate must be float \| None, not '1'"):
        function.new(1, "1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="flag must be bool, not 'false'"):
        function.new(1, flag="false")  # type: ignore[arg-type]


def test_collections_bytes_paths_and_literals_arrive_as_given() -> None:
    given = {
        "pair": (1, "a"),
        "bare": (1, [2]),
        "names": {"b", "a"},
        "keys": frozenset({ONE}),
        "body": b"\x00\xff",
        "file": Path("a/b"),
        "mode": "fast",
        "address": ip_address("10.0.0.1"),
    }
    arrived = collections.process(stored(collections.new(**given)))
    assert arrived == given
    assert {name: type(value) for name, value in arrived.items()} == {
        name: type(value) for name, value in given.items()
    }
    assert collections.new(**given).args["names"] == ["a", "b"]
    for wrong in ({"mode": "quick"}, {"body": "text"}, {"names": 7}, {"pair": (1, "a", 2)}):
        with pytest.raises(TypeError, match=f"{next(iter(wrong))} must be"):
            collections.new(**{**given, **wrong})


def test_values_of_ambiguous_types_are_not_converted() -> None:
    assert either.new("a", [1]).args == {"key": "a", "plain": [1]}
    with pytest.raises(TypeError, match=r"args\['key'\] is a UUID, not JSON"):
        either.new(ONE, [1])


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("at", "2026-11-01", "datetime.datetime"),
        ("key", 7, "uuid.UUID"),
        ("color", "red", "Color"),
        ("invoice", {"total": 1}, "Invoice"),
        ("report", {}, "Report"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: Any, kind: str) -> None:
    args: dict[str, Any] = dict.fromkeys(
        ("at", "key", "amount", "color", "size", "day", "hour", "length", "invoice", "report")
    )
    # In the order of the parameters, so all arguments before the wrong one are right.
    right = {
        "at": NOON,
        "key": ONE,
        "amount": Decimal(1),
        "color": Color.RED,
        "size": Size.SMALL,
        "day": NOON.date(),
        "hour": NOON.time(),
        "length": timedelta(1),
        "invoice": Invoice(Money(Decimal(1)), NOON.date()),
    }
    with pytest.raises(TypeError, match=rf"everything: {name} must be .*{kind}, not "):
        everything.new(**{**args, **right, name: value})


def test_a_value_that_is_no_row_is_refused_for_a_mapped_class() -> None:
    @job(name="annotations.order")
    def function(order: Order) -> None: ...

    with pytest.raises(TypeError, match=r"order must be .*Order, not 7"):
        function.new(7)  # type: ignore[arg-type]


def test_an_unfit_stored_value_raises_an_error() -> None:
    with pytest.raises(ValueError, match=r"late: it can't be read as .*Late: 7"):
        late.process(Job(late.new(Late(NOON)).worker, {"it": 7}))
