"""Cancel, retry, delete: the returned numbers, and the notifications."""

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import JobNotFoundError, JobState, Oban
from tests.conftest import Add, StartOban
from tests.enqueue.conftest import Listener
from tests.factories import JobFactory
from tests.listening import hear
from tests.manage.conftest import Find, States
from tests.runtime.workers import Quick

Sessions = async_sessionmaker[AsyncSession]

S = JobState
NEVER = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


@pytest.fixture
async def one_of_each(add: Add) -> dict[JobState, int]:
    """The ids of jobs, one in every state."""
    ids = await add(*(JobFactory(state=state, queue=f"of {state}") for state in JobState))
    return dict(zip(JobState, ids, strict=True))


def pkill(id: int) -> tuple[str, dict[str, Any]]:
    return ("oban_signal", {"action": "pkill", "job_id": id})


async def test_a_missing_job_is_an_error(oban: Oban, one_of_each: dict[JobState, int]) -> None:
    id = one_of_each[S.COMPLETED]
    assert (await oban.get_one_job(id)).state is S.COMPLETED
    await oban.delete_jobs(id)
    with pytest.raises(JobNotFoundError, match=rf"there is no job {id}; get_job\(\) returns None"):
        await oban.get_one_job(id)
    assert await oban.get_job(id) is None


class TestCancel:
    async def test_running_jobs_count_and_are_told_to_stop(
        self, oban: Oban, one_of_each: dict[JobState, int], listener: Listener
    ) -> None:
        assert await oban.cancel_jobs(one_of_each.values()) == 5
        assert await listener.heard() == [pkill(one_of_each[S.EXECUTING])]

    async def test_a_node_hears_of_a_cancellation_at_the_commit(
        self, oban: Oban, sessions: Sessions, add: Add, listener: Listener
    ) -> None:
        first, second = await add(JobFactory(executing=True), JobFactory(executing=True))
        async with sessions() as session:
            await oban.cancel_jobs([second, first], conn=session)
            assert await listener.heard() == []
            await session.rollback()
            assert await listener.heard() == []
            await oban.cancel_jobs([second, first], conn=session)
            await session.commit()
        assert await listener.heard() == [pkill(first), pkill(second)]

    async def test_a_second_cancellation_is_notified_again(
        self, oban: Oban, add: Add, listener: Listener
    ) -> None:
        (id,) = await add(JobFactory(executing=True))
        assert [await oban.cancel_jobs(id), await oban.cancel_jobs(id)] == [1, 1]
        assert await listener.heard() == [pkill(id), pkill(id)]


class TestRetry:
    async def test_the_queues_of_retried_jobs_are_notified(
        self, oban: Oban, one_of_each: dict[JobState, int], listener: Listener, states: States
    ) -> None:
        assert await oban.retry_jobs(one_of_each.values()) == 6
        unmoved = ("available", "executing")
        assert await listener.heard() == [
            ("oban_insert", {"queue": f"of {state}"})
            for state in sorted(JobState)
            if state not in unmoved
        ]
        assert sorted(await states()) == [S.AVAILABLE] * 7 + [S.EXECUTING]

    @pytest.mark.parametrize("own", [True, False])
    async def test_queues_of_this_process_are_woken_at_the_commit(
        self, start: StartOban, oban: Oban, add: Add, sessions: Sessions, own: bool
    ) -> None:
        (id,) = await add(Quick.new())
        await oban.cancel_jobs(id)
        # The node does not listen or poll, so only the short cut remains.
        running = await start(queues={"default": 1}, notify="poll", **NEVER)
        with hear(running, "ack_stop") as acks:
            if own:
                await oban.retry_jobs(id)
            else:
                async with sessions.begin() as session:
                    await oban.retry_jobs(id, conn=session)
            await acks.counted(1)


class TestDelete:
    async def test_all_jobs_but_running_ones_are_deleted(
        self, oban: Oban, one_of_each: dict[JobState, int], states: States
    ) -> None:
        assert await oban.delete_jobs(one_of_each.values()) == 7
        assert await states() == [S.EXECUTING]


class TestSpellingsOfOban:
    async def test_the_names_of_oban_change_one_job(
        self, oban: Oban, add: Add, states: States
    ) -> None:
        job = JobFactory()
        (id,) = await add(job)
        await oban.cancel_job(job)
        assert await states() == [S.CANCELLED]
        await oban.retry_job(id)
        assert await states() == [S.AVAILABLE]
        assert (await oban.update_job(job, {"priority": 3})).priority == 3
        assert (await oban.update_job(id, lambda job: {"priority": job.priority + 1})).priority == 4
        found = await oban.get_job(id)
        assert found is not None
        assert found.priority == 4
        await oban.delete_job(job)
        assert await oban.get_job(id) is None

    async def test_the_names_of_oban_change_many_jobs(
        self, oban: Oban, add: Add, find: Find
    ) -> None:
        jobs = [JobFactory(), JobFactory()]
        ids = await add(*jobs)
        assert await oban.cancel_many_jobs([jobs[0], ids[1]]) == 2
        assert await oban.retry_many_jobs([ids[0], jobs[1]]) == 2
        updated = await oban.update_many_jobs(jobs, {"priority": 3})
        assert [job.id for job in updated] == ids
        assert [job.priority for job in await find()] == [3, 3]
        assert await oban.delete_many_jobs(jobs) == 2

    async def test_the_names_of_oban_join_a_session(
        self, oban: Oban, add: Add, sessions: Sessions
    ) -> None:
        (id,) = await add(JobFactory())
        async with sessions() as session:
            await oban.cancel_job(id, conn=session)
            await oban.retry_job(id, conn=session)
            updated = await oban.update_job(id, {"priority": 3}, conn=session)
            assert await oban.get_job(id, conn=session) is updated
            assert await oban.cancel_many_jobs([id], conn=session) == 1
            assert await oban.retry_many_jobs([id], conn=session) == 1
            assert await oban.update_many_jobs([id], {"priority": 4}, conn=session) == [updated]
            assert await oban.delete_many_jobs([id], conn=session) == 1
            await oban.delete_job(id, conn=session)
            await session.rollback()
        assert await oban.get_job(id) is not None

    @pytest.mark.parametrize(
        "verb", ["cancel_job", "retry_job", "delete_job", "get_job", "cancel_many_jobs"]
    )
    async def test_a_job_that_was_not_enqueued_is_refused(self, oban: Oban, verb: str) -> None:
        job: Any = [JobFactory()] if "many" in verb else JobFactory()
        with pytest.raises(ValueError, match="has no id"):
            await getattr(oban, verb)(job)

    async def test_an_update_of_a_missing_job_is_an_error(self, oban: Oban, add: Add) -> None:
        job = JobFactory()
        await add(job)
        await oban.delete_job(job)
        with pytest.raises(LookupError, match=r"there is no job <Job id=1 .*>"):
            await oban.update_job(job, {"priority": 1})
        with pytest.raises(LookupError, match=r"there is no job 17"):
            await oban.update_job(17, {"priority": 1})
        assert await oban.update_many_jobs([job], {"priority": 1}) == []
