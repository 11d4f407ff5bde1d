"""Jobs that end in their first step: the counts of their queue, and the turns of other tasks."""

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Oban, job
from oban_sqla.events import JobStart
from oban_sqla.runtime.raw_statement import RawStatement
from tests.conftest import StartOban
from tests.listening import hear
from tests.runtime.conftest import NoteFetches
from tests.runtime.workers import Quick

NEVER = {"poll_interval": 3600.0, "fallback_interval": 3600.0}
PAUSED = {"default": {"limit": 20, "paused": True}}

ran: list[str] = []


@job(name="eager.blocks")
async def block() -> None:
    time.sleep(0.004)  # noqa: ASYNC251 - the point of it
    ran.append("job")


async def test_a_job_counts_as_running_in_its_first_step(
    start: StartOban, sessions: async_sessionmaker[AsyncSession]
) -> None:
    async with sessions.begin() as session:
        session.add_all([Quick.new() for _ in range(3)])
    oban = await start(queues=PAUSED, **NEVER)
    counted: list[bool] = []

    @event.listens_for(oban, "job_start")
    def look(oban: Oban, start: JobStart) -> None:
        counted.append(start.job.id in oban.check_one_queue("default").running)

    with hear(oban, "ack_stop") as acks:
        await oban.resume_queue("default")
        await acks.counted(3)
    assert counted == [True] * 3
    assert oban.check_one_queue("default").running == []


async def test_a_job_that_ends_in_its_first_step_causes_no_second_claim(
    start: StartOban, note_fetches: NoteFetches
) -> None:
    sent: list[str] = []

    def note(statement: RawStatement, params: Mapping[str, Any]) -> None:
        sent.append("claim" if "after_id" in params else "write")

    with hear(Oban, "claim_stop") as claims:
        oban = await start(queues={"default": 20}, notify="poll", **NEVER)
        await claims.wait(1)
    with hear(oban, "ack_stop") as acks:
        note_fetches(note)
        await oban.enqueue(Quick.new())
        await acks.counted(1)
    # A second claim would be sent before the write is back.
    assert sent[-2:] == ["claim", "write"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all jobs get their first step in one turn")
async def test_the_event_loop_runs_between_jobs_that_block_it(
    start: StartOban, sessions: async_sessionmaker[AsyncSession]
) -> None:
    async def take_turns() -> None:
        while True:
            await asyncio.sleep(0)
            if ran and ran[-1] == "job":
                ran.append("turn")

    ran.clear()
    async with sessions.begin() as session:
        session.add_all([block.new() for _ in range(10)])
    oban = await start(queues=PAUSED, **NEVER)
    turns = asyncio.create_task(take_turns())
    with hear(oban, "ack_stop") as acks:
        await oban.resume_queue("default")
        await acks.counted(10)
    turns.cancel()
    await asyncio.wait([turns])
    assert ran == ["job", "turn"] * 10
