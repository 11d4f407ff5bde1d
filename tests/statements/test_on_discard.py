"""The jobs that follow discarded jobs: the statement that discards inserts them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState
from oban_sqla.models.on_discard import ENTRY
from oban_sqla.statements.acknowledge import Ack, acknowledge_discards, outcomes
from oban_sqla.statements.claim import claim_of_queue
from oban_sqla.statements.claimed import Claimed
from oban_sqla.statements.give_back import give_back
from tests.conftest import Add
from tests.factories import JobFactory
from tests.statements.conftest import Find, Run, WithMeta
from tests.statements.test_claim import PRODUCER, params

Sessions = async_sessionmaker[AsyncSession]

S = JobState
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
BEGUN = datetime(2026, 11, 23, 11, 59, tzinfo=UTC)

RECORD: dict[str, Any] = {
    "worker": "shop.Tell",
    "queue": "alerts",
    "max_attempts": 3,
    "priority": 2,
    "tags": ["a", "b"],
    "meta": {"m": 1},
}


def executing(**fields: Any) -> Job:
    return JobFactory(
        **{
            "executing": True,
            "attempt": 2,
            "attempted_at": BEGUN,
            "meta": {ENTRY: RECORD, "mine": 1},
            **fields,
        }
    )


async def discard(run: Run, *ids: int, state: JobState = S.DISCARDED) -> list[int]:
    acks = [Ack(id, 2, BEGUN, state, error="boom") for id in ids]
    return [row[0] for row in await run(acknowledge_discards(now=NOW), **outcomes(acks))]


async def followers(sessions: Sessions) -> list[Job]:
    async with sessions() as session:
        return list(await session.scalars(select(Job).where(Job.worker == "shop.Tell")))


async def test_a_discard_inserts_the_declared_follower(
    add: Add, run: Run, sessions: Sessions
) -> None:
    (id,) = await add(executing())
    assert await discard(run, id) == [id]
    (job,) = await followers(sessions)
    assert job.args == {"job_id": id}
    assert {field: getattr(job, field) for field in RECORD} == RECORD
    assert (job.state, job.attempt, job.errors) == (S.AVAILABLE, 0, [])


async def test_a_repeated_outcome_inserts_no_second_follower(
    add: Add, run: Run, sessions: Sessions
) -> None:
    (id,) = await add(executing())
    await discard(run, id)
    assert await discard(run, id) == []
    assert len(await followers(sessions)) == 1


@pytest.mark.parametrize("state", [S.RETRYABLE, S.COMPLETED, S.CANCELLED])
async def test_other_outcomes_insert_no_follower(
    add: Add, run: Run, sessions: Sessions, state: JobState
) -> None:
    (id,) = await add(executing())
    assert await discard(run, id, state=state) == [id]
    assert await followers(sessions) == []


async def test_a_job_cancelled_while_it_ran_has_no_follower(
    add: Add, run: Run, sessions: Sessions
) -> None:
    marked = {ENTRY: RECORD, "cancel_attempted_at": "2026-11-23T11:59:59"}
    (id,) = await add(executing(meta=marked))
    assert await discard(run, id) == [id]
    assert await followers(sessions) == []


ODD: list[Any] = [
    None,
    [ENTRY],
    ENTRY,
    {ENTRY: None},
    {ENTRY: [RECORD]},
    *({ENTRY: {**RECORD, field: wrong}} for field in RECORD for wrong in (None, "", [1])
      if (field, wrong) != ("tags", [1])),
    {ENTRY: {**RECORD, "max_attempts": 40000}},
    {ENTRY: {**RECORD, "max_attempts": "3"}},
    {ENTRY: {**RECORD, "priority": -1}},
    {ENTRY: {**RECORD, "priority": 10**30}},
]  # fmt: skip


async def test_entries_of_another_program_disturb_no_outcome(
    add: Add, run: Run, find: Find, with_meta: WithMeta, sessions: Sessions
) -> None:
    *odd, good = await add(*(executing() for _ in [*ODD, "good"]))
    for id, meta in zip(odd, ODD, strict=True):
        await with_meta(id, meta)
    assert sorted(await discard(run, *odd, good)) == [*odd, good]
    assert [job.args["job_id"] for job in await followers(sessions)] == [good]
    assert {(await find(id)).state for id in odd} == {S.DISCARDED}


class TestWithNoAttemptLeft:
    """The claim of an available job without an attempt left, as other programs leave it."""

    async def test_a_job_with_a_follower_is_claimed_to_be_discarded(
        self, add: Add, run: Run, find: Find, sessions: Sessions
    ) -> None:
        spent, other = await add(
            JobFactory(attempt=20, meta={ENTRY: RECORD}), JobFactory(attempt=19)
        )
        rows = [Claimed(row) for row in await run(claim_of_queue(now=NOW), **params())]
        assert [(row.id, row.none_left, row.attempt) for row in rows] == [
            (spent, True, 20),
            (other, False, 20),
        ]
        job = await find(spent)
        assert (job.state, job.attempted_at) == (S.EXECUTING, NOW)
        assert await followers(sessions) == []
        assert rows[0].job(json.loads).attempted_by[3:] == ["none left"]

    async def test_a_job_given_back_gets_no_further_attempt(
        self, add: Add, run: Run, find: Find
    ) -> None:
        spent, other = await add(
            JobFactory(attempt=20, meta={ENTRY: RECORD}), JobFactory(attempt=19)
        )
        await run(claim_of_queue(now=NOW), **params())
        await run(give_back(), queue_name="default", producer=PRODUCER, running=[])
        assert [(await find(id)).attempt for id in (spent, other)] == [20, 19]
        assert (await find(spent)).state is S.AVAILABLE
