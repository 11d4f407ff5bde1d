"""How the table stores references, and JSON from users that looks like one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_sqla import Job, Unique, Worker
from oban_sqla.models.notation import Reference, from_table, references, to_table
from oban_sqla.models.types import Arguments
from tests.models_as_arguments import Order

keys = st.sampled_from(["$model", "$key", "$$model", "$$key", "$$$model", "$", "$set", "model", ""])
values = st.recursive(
    st.none() | st.integers() | keys,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
)
LOOKALIKE = {"$model": "tests.models_as_arguments.Order", "$key": {"id": 1}}


class Send(Worker, name="tests.notation.Send"):
    async def process(self, job: Job) -> None: ...


@given(st.dictionaries(keys, values, max_size=3))
def test_json_is_never_read_as_a_reference(args: Any) -> None:
    read = from_table(json.loads(json.dumps(to_table(args))))
    assert read == args
    assert not [*references(read)]


@given(st.dictionaries(keys, values, max_size=3), values)
def test_a_reference_among_json_stays_a_reference(args: Any, key: Any) -> None:
    args = {**args, "it": [{"of": Reference({"$model": "shop.Order", "$key": key})}]}
    read = from_table(json.loads(json.dumps(to_table(args))))
    assert read == args
    assert [*references(read)] == [{"$model": "shop.Order", "$key": key}]


@pytest.mark.parametrize(
    ("args", "stored"),
    [
        ({"a": {"$model": 1, "$key": 2}}, {"a": {"$$model": 1, "$$key": 2}}),
        ({"a": [{"$key": 2}]}, {"a": [{"$$key": 2}]}),
        ({"$model": 1, "$key": 2}, {"$$model": 1, "$$key": 2}),
        ({"$$model": 1}, {"$$$model": 1}),
        ({"$set": {"$ref": "#/a", "$schema": "$model"}}, None),
    ],
)
def test_only_keys_of_the_notation_are_escaped(args: Any, stored: Any) -> None:
    assert to_table(args) == (args if stored is None else stored)


def test_the_arguments_as_a_whole_are_no_reference() -> None:
    assert not [*references(from_table(LOOKALIKE))]


def test_deeply_nested_json_is_not_searched_for_references() -> None:
    """Another program may have stored it. Reading it must not exhaust the stack of the node."""
    deep: Any = LOOKALIKE
    for _ in range(5000):
        deep = [deep]
    found = from_table({"deep": deep})["deep"]
    while isinstance(found, list):
        (found,) = found
    assert not isinstance(found, Reference)


def test_a_unique_key_is_made_from_the_stored_form() -> None:
    unique = Unique(fields=["args"])
    of_row, of_json = Send.new({"it": Order(id=1)}), Send.new({"it": LOOKALIKE})
    vars(of_row)["args"] = {"it": Reference(LOOKALIKE)}
    keys = [unique.entry(vars(job))["key"] for job in (of_row, of_json, Send.new({"it": 1}))]
    assert len({*keys}) == 3
    assert unique.entry(vars(of_json)) == unique.entry(vars(Send.new({"it": {**LOOKALIKE}})))


def test_a_reference_differs_from_json_that_looks_like_it() -> None:
    type_ = Arguments()
    assert not type_.compare_values({"a": Reference(LOOKALIKE)}, {"a": LOOKALIKE})
    assert type_.compare_values({"a": LOOKALIKE}, {"a": {**LOOKALIKE}})
