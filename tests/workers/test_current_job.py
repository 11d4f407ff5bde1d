"""`current_job()` works anywhere below `process`, and nowhere else."""

import asyncio

import pytest

from oban_sqla import JobNotFoundError, Record, Worker, current_job, running_job
from tests.attempts import Async, Sync, behaviours, execute, perform
from tests.claimed import claimed


def test_current_job_outside_of_a_job_is_none() -> None:
    assert current_job() is None
    with pytest.raises(
        JobNotFoundError, match=r"no job is processed here; current_job\(\) returns"
    ):
        running_job()


@pytest.mark.parametrize("kind", [Async, Sync])
async def test_current_job_is_the_job_being_processed(kind: type[Worker]) -> None:
    ack = await perform(kind, lambda job: Record(current_job() is running_job() is job))
    assert ack.meta is not None
    assert ack.meta["return"] is True
    assert current_job() is None


async def test_current_job_is_known_in_child_tasks_and_threads() -> None:
    def number() -> int | None:
        current = current_job()
        return current and current.id

    async def child() -> list[int | None]:
        return [number(), await asyncio.to_thread(number)]

    async def process() -> Record:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(child())
        return Record(await task)

    ack = await perform(Async, lambda job: process())
    assert ack.meta is not None
    assert ack.meta["return"] == [7, 7]


async def test_concurrent_jobs_have_their_own_current_job() -> None:
    async def process() -> Record:
        before = current_job()
        await asyncio.sleep(0)
        assert current_job() is before
        return Record(before and before.id)

    behaviours["process"] = lambda job: process()
    jobs = [claimed(Async.new().worker, id=n) for n in range(1, 6)]
    acks = await asyncio.gather(*map(execute, jobs))
    assert [ack.meta and ack.meta["return"] for ack in acks] == [1, 2, 3, 4, 5]
