"""Instances are found by name. Only their users hold references to them."""

import gc

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import InstanceNotFoundError, Oban, instances


def test_the_newest_instance_of_a_name_is_found(engine: AsyncEngine) -> None:
    first = Oban(engine)
    second = Oban(engine)
    assert instances.get("Oban") is second
    assert instances.find("Oban") is not first


def test_an_older_instance_of_a_name_is_found_once_the_newest_is_gone(engine: AsyncEngine) -> None:
    first = Oban(engine)
    second = Oban(engine)
    assert instances.get("Oban") is second
    del second
    gc.collect()
    assert instances.get("Oban") is first


def test_an_instance_that_starts_again_is_the_newest(engine: AsyncEngine) -> None:
    first = Oban(engine)
    second = Oban(engine)
    instances.register(first)
    assert instances.get("Oban") is first is not second


def test_a_dropped_instance_is_forgotten(engine: AsyncEngine) -> None:
    oban = Oban(engine, name="short-lived")
    assert instances.find("short-lived") is oban
    del oban
    gc.collect()
    assert instances.find("short-lived") is None


def test_the_error_names_the_known_instances(engine: AsyncEngine) -> None:
    oban = Oban(engine, name="billing")
    with pytest.raises(InstanceNotFoundError, match=r"named 'Oban' .*\(there: 'billing'\)"):
        instances.get("Oban")
    assert oban.name == "billing"
