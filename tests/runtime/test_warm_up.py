"""An idle node compiles the statements of its jobs at its start, and collects garbage."""

import gc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban_sqla.runtime import warm_up
from oban_sqla.runtime.claiming import CALM
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.group_commit import RUSH
from oban_sqla.runtime.raw_statement import raw_text
from oban_sqla.runtime.warm_up import statements_of_jobs
from tests.conftest import Add, StartOban
from tests.listening import hear
from tests.runtime.workers import Quick


@pytest.fixture(autouse=True)
def in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "_is_warm", False)


async def test_the_jobs_of_an_idle_node_compile_no_other_statement(start: StartOban) -> None:
    raw_text.cache_clear()
    oban = await start(queues={"default": 5, "other": 5}, leadership=False)
    most = 2 * max(CALM, RUSH)
    with hear(oban, "ack_stop") as written:
        for number in range(most):
            await oban.enqueue(Quick.new())
            await written.wait(number + 1)
        await oban.enqueue(Quick.new(scheduled_at=datetime.now(UTC) + timedelta(seconds=0.05)))
        await written.wait(most + 1)
    # A service that sends another object than the list names would compile one more.
    assert raw_text.cache_info().misses == len(statements_of_jobs(oban._database.prefix))


async def test_a_node_that_finds_jobs_does_not_let_them_wait(start: StartOban, add: Add) -> None:
    raw_text.cache_clear()
    await add(Quick.new())
    oban = await start(queues={"other": 5, "default": 5}, leadership=False)
    with hear(oban, "ack_stop") as written:
        await written.wait(1)
    claim_stage_and_acknowledge = 3
    assert raw_text.cache_info().misses == claim_stage_and_acknowledge


@pytest.fixture
def full_collections() -> Iterator[list[str]]:
    """The full collections during a test."""
    full: list[str] = []

    def note(phase: str, info: dict[str, Any]) -> None:
        if info["generation"] == 2 and phase == "start":
            full.append(phase)

    gc.callbacks.append(note)
    yield full
    gc.callbacks.remove(note)


async def test_only_the_first_node_of_a_process_collects_garbage(
    database: Database, full_collections: list[str]
) -> None:
    await warm_up.warm_up(database, ["default"])
    assert len(full_collections) == 1
    await warm_up.warm_up(database, ["default"])
    assert len(full_collections) == 1


async def test_a_collector_that_is_off_stays_off(
    database: Database, full_collections: list[str]
) -> None:
    gc.disable()
    try:
        await warm_up.warm_up(database, ["default"])
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert full_collections == []
